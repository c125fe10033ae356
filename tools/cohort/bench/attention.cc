// cohort bench attention: one batch of sequences over all ranks, forward and backward, split and moved in every way, in
// one run. They take turns; the median counts. Of each: the time of the slowest rank, the processor time that the
// busiest rank spends in attention, and what the plan says that it must be.
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "parallel/sequence/attention_time.h"
#include "parallel/sequence/context_attention.h"
#include "runtime/ops/ops.h"
#include "tools/cohort/bench/bench.h"
#include "tools/cohort/bench/model.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

using parallel::AttentionWay;
using parallel::Moves;
using parallel::Pass;
using parallel::SplitKind;
using parallel::TokenSplit;
using runtime::Tensor;

constexpr absl::Duration kAttentionPatience = absl::Minutes(5);
constexpr int64_t kStateBytes = 4;
// What the choice of a way is made with.
constexpr size_t kProbeBytes = size_t{1} << 20;
constexpr int64_t kProbeTokens = 1024;
constexpr int kProbes = 5;
constexpr double kAssumedLatency = 50e-6;

struct AttentionFlags {
  std::vector<int64_t> lengths = {4096};
  int64_t heads = 8, kv_heads = 8, head_dim = 64;
  int turns = 5, threads = 1;
  std::string dtype = "f32", json;
};

// The operation for whole sequences as a core: what a ring of one rank is compared with.
class WholeAttention final : public runtime::AttentionCore {
 public:
  explicit WholeAttention(const std::vector<int64_t>& lengths) {
    std::vector<int32_t> offsets = {0};
    for (const int64_t length : lengths) offsets.push_back(offsets.back() + static_cast<int32_t>(length));
    offsets_ = Tensor::FromHost(runtime::CpuDevice(), {static_cast<int64_t>(offsets.size())},
                                absl::MakeConstSpan(offsets));
  }

  absl::StatusOr<Tensor> Forward(const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                                 std::unique_ptr<Saved>* saved) override {
    runtime::Device& device = q.device();
    auto kept = std::make_unique<Kept>();
    kept->q = q, kept->k = k, kept->v = v, kept->scale = scale;
    kept->y = Tensor::Empty(device, q.shape(), q.dtype());
    kept->lse = Tensor::Empty(device, {q.dim(1), q.dim(0)}, device.state_dtype());
    device.ops().Attention(q, k, v, offsets_, scale, kept->y, kept->lse);
    const Tensor y = kept->y;
    *saved = std::move(kept);
    return y;
  }
  absl::Status Backward(const Tensor& dy, Saved& saved, const Tensor& dq, const Tensor& dk,
                        const Tensor& dv) override {
    const auto& kept = static_cast<const Kept&>(saved);
    dy.device().ops().AttentionGrad(dy, kept.q, kept.k, kept.v, kept.y, kept.lse, offsets_, kept.scale, dq,
                                    dk, dv);
    return absl::OkStatus();
  }

 private:
  struct Kept final : Saved {
    Tensor q, k, v, y, lse;
    double scale = 1;
  };
  Tensor offsets_;
};

// One way of doing it, with inputs and outputs of this rank.
struct AttentionContestant {
  SplitKind kind;
  parallel::ContextWays ways;
  std::string who = {};  // where the ways do not say it
  bool whole = false;    // by the operation for whole sequences
  std::shared_ptr<runtime::AttentionCore> core = nullptr;
  std::unique_ptr<parallel::AttentionSeconds> clock = std::make_unique<parallel::AttentionSeconds>();
  Tensor q = {}, k = {}, v = {}, dy = {}, dq = {}, dk = {}, dv = {};
  int64_t most_pairs = 0, most_sent = 0;  // of a rank, by the plan
  std::vector<double> seconds = {}, compute = {}, forward = {};
  double forward_seconds = 0;  // of the last turn

  absl::Status Run() {
    std::unique_ptr<runtime::AttentionCore::Saved> saved;
    const auto begin = std::chrono::steady_clock::now();
    COHORT_RETURN_IF_ERROR(core->Forward(q, k, v, 0.125, &saved).status());
    forward_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return core->Backward(dy, *saved, dq, dk, dv);
  }
};

absl::StatusOr<double> MostOfRanks(comm::Communicator& world, double value) {
  COHORT_RETURN_IF_ERROR(world.AllReduce(&value, &value, 1, DataType::kF64, comm::ReduceOp::kMax).Wait());
  return value;
}

absl::Status Prepare(AttentionContestant& contestant, const std::shared_ptr<comm::Communicator>& world,
                     const AttentionFlags& flags, DataType dtype) {
  COHORT_ASSIGN_OR_RETURN(const TokenSplit split,
                          TokenSplit::Create(contestant.kind, world->size(), flags.lengths));
  runtime::Device& device = runtime::CpuDevice();
  COHORT_ASSIGN_OR_RETURN(contestant.core,
                          parallel::MakeContextAttention(parallel::WholeGroup(world), split, contestant.ways,
                                                         device, contestant.clock.get()));
  if (contestant.whole) contestant.core = std::make_shared<WholeAttention>(flags.lengths);
  const int64_t tokens = split.tokens(world->rank());
  const auto random = [&](int64_t heads, uint32_t purpose) {
    const Tensor tensor = Tensor::Empty(device, {tokens, heads, flags.head_dim}, dtype);
    device.ops().FillNormal(tensor, 1, purpose, static_cast<uint64_t>(world->rank()) << 40, 1);
    return tensor;
  };
  contestant.q = random(flags.heads, 1), contestant.dy = random(flags.heads, 2),
  contestant.dq = random(flags.heads, 3);
  contestant.k = random(flags.kv_heads, 4), contestant.v = random(flags.kv_heads, 5);
  contestant.dk = random(flags.kv_heads, 6), contestant.dv = random(flags.kv_heads, 7);
  const parallel::PairTable pairs(split, contestant.ways.forward.head_parts);
  for (const Pass pass : {Pass::kForward, Pass::kBackward}) {
    COHORT_ASSIGN_OR_RETURN(
        const auto plan,
        MakeAttentionPlan(pass, pass == Pass::kForward ? contestant.ways.forward : contestant.ways.backward,
                          world->size(), pairs));
    // Of flops of one a second: what the busiest computes, in both passes.
    COHORT_ASSIGN_OR_RETURN(const auto time,
                            SimulateAttention(plan, split,
                                              {flags.heads, flags.kv_heads, flags.head_dim,
                                               static_cast<int64_t>(SizeOf(dtype)), kStateBytes},
                                              {parallel::Wiring::kSwitch, 0, 1e30, 1}));
    contestant.most_sent += time.most_sent;
    if (pass == Pass::kForward) {
      contestant.most_pairs = static_cast<int64_t>(time.most_compute / parallel::kForwardFlopsPerElement /
                                                   static_cast<double>(flags.heads * flags.head_dim));
    }
  }
  return absl::OkStatus();
}

// Of all threads of this process.
double ProcessorSeconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Of this machine, as all ranks have it: the slowest of neighbours that all send at once, and of attention on one rank.
absl::StatusOr<parallel::AttentionMachine> MeasureMachine(const std::shared_ptr<comm::Communicator>& world,
                                                          const AttentionFlags& flags, DataType dtype) {
  const int n = world->size(), rank = world->rank();
  parallel::AttentionMachine machine;
  machine.latency = kAssumedLatency;
  std::vector<char> out(kProbeBytes), in(kProbeBytes);
  std::vector<double> moving, handling, computing;
  AttentionFlags probe = flags;
  probe.lengths = {kProbeTokens};
  AttentionContestant alone{SplitKind::kContiguous, {}};
  COHORT_RETURN_IF_ERROR(Prepare(alone, comm::Communicator::Single(), probe, dtype));
  for (int i = 0; i < kProbes; ++i) {
    COHORT_RETURN_IF_ERROR(world->Barrier().Wait());
    auto begin = std::chrono::steady_clock::now();
    const double before = ProcessorSeconds();
    const comm::Work works[] = {world->Recv(in.data(), in.size(), DataType::kU8, (rank + n - 1) % n),
                                world->Send(out.data(), out.size(), DataType::kU8, (rank + 1) % n)};
    COHORT_RETURN_IF_ERROR(parallel::WaitForAll(works));
    moving.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    handling.push_back(ProcessorSeconds() - before);
    COHORT_RETURN_IF_ERROR(world->Barrier().Wait());
    begin = std::chrono::steady_clock::now();
    COHORT_RETURN_IF_ERROR(alone.Run());
    computing.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  COHORT_ASSIGN_OR_RETURN(const double moved, MostOfRanks(*world, Median(moving)));
  COHORT_ASSIGN_OR_RETURN(const double computed, MostOfRanks(*world, Median(computing)));
  machine.bytes_per_second = static_cast<double>(kProbeBytes) / moved;
  // A second of a processor that ranks share takes as many seconds as computing there does.
  const double share = Median(computing) * kProbes / alone.clock->compute;
  COHORT_ASSIGN_OR_RETURN(const double handled, MostOfRanks(*world, Median(handling) * share));
  machine.host_seconds_per_byte = handled / (2 * static_cast<double>(kProbeBytes));
  machine.flops_per_second = (parallel::kForwardFlopsPerElement + parallel::kBackwardFlopsPerElement) *
                             static_cast<double>(alone.most_pairs * flags.heads * flags.head_dim) / computed;
  return machine;
}

absl::Status BenchAttention(const AttentionFlags& flags) {
  // Ranks may outnumber cores: who does not answer for a while is not lost.
  setenv("COHORT_PEER_SILENCE_MS", "60000", /*overwrite=*/0);
  COHORT_ASSIGN_OR_RETURN(const auto world, JoinWorld(kAttentionPatience));
  const int n = world->size();
  if (flags.heads % flags.kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv-heads ", flags.kv_heads, " must divide --heads ", flags.heads));
  }
  runtime::SetCpuThreads(flags.threads);
  const DataType dtype = flags.dtype == "bf16" ? DataType::kBF16 : DataType::kF32;
  std::vector<AttentionContestant> contestants;
  if (n == 1) contestants.push_back({SplitKind::kContiguous, {}, "the operation for whole sequences", true});
  for (const SplitKind kind : {SplitKind::kContiguous, SplitKind::kZigzag, SplitKind::kStriped}) {
    for (const Moves moves : {Moves::kKeysAndValues, Moves::kQueries}) {
      contestants.push_back({kind, {{moves, 1}, {moves, 1}}});
      if (n == 1) break;
    }
  }
  for (int parts = 2; parts <= n; ++parts) {
    if (n % parts == 0 && flags.heads % parts == 0) {
      const AttentionWay way = {Moves::kKeysAndValues, parts};
      contestants.push_back({SplitKind::kZigzag, {way, way}});
    }
  }
  if (n > 1) {
    COHORT_ASSIGN_OR_RETURN(const parallel::AttentionMachine machine, MeasureMachine(world, flags, dtype));
    COHORT_ASSIGN_OR_RETURN(const TokenSplit split, TokenSplit::Create(SplitKind::kZigzag, n, flags.lengths));
    COHORT_ASSIGN_OR_RETURN(const parallel::AttentionChoice choice,
                            ChooseAttention(split,
                                            {flags.heads, flags.kv_heads, flags.head_dim,
                                             static_cast<int64_t>(SizeOf(dtype)), kStateBytes},
                                            machine));
    contestants.push_back(
        {SplitKind::kZigzag, {choice.best.forward, choice.best.backward}, "as chosen, zigzag"});
    if (world->rank() == 0) {
      std::printf("links carry %.2f GB/s, ranks compute %.0f GFLOP/s and copy %.2f GB/s; chosen: %s\n",
                  machine.bytes_per_second / 1e9, machine.flops_per_second / 1e9,
                  1e-9 / machine.host_seconds_per_byte, choice.reason.c_str());
    }
  }
  for (auto& contestant : contestants) COHORT_RETURN_IF_ERROR(Prepare(contestant, world, flags, dtype));

  for (int turn = -1; turn < flags.turns; ++turn) {  // the first one warms up
    for (auto& contestant : contestants) {
      *contestant.clock = {};
      COHORT_RETURN_IF_ERROR(world->Barrier().Wait());
      const auto begin = std::chrono::steady_clock::now();
      COHORT_RETURN_IF_ERROR(contestant.Run());
      const double own = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      COHORT_ASSIGN_OR_RETURN(const double seconds, MostOfRanks(*world, own));
      COHORT_ASSIGN_OR_RETURN(const double forward, MostOfRanks(*world, contestant.forward_seconds));
      COHORT_ASSIGN_OR_RETURN(const double compute, MostOfRanks(*world, contestant.clock->compute));
      if (turn < 0) continue;
      contestant.seconds.push_back(seconds);
      contestant.forward.push_back(forward);
      contestant.compute.push_back(compute);
    }
  }
  if (world->rank() != 0) return absl::OkStatus();
  std::printf(
      "%zu sequences, %d query and %d key/value heads of %d, %s; %d ranks on %d hosts, %d threads each\n",
      flags.lengths.size(), static_cast<int>(flags.heads), static_cast<int>(flags.kv_heads),
      static_cast<int>(flags.head_dim), flags.dtype.c_str(), n, world->topology().num_hosts(), flags.threads);
  std::printf("%-34s %9s %9s %8s %14s %8s %12s %12s\n", "forward and backward", "ms", "forward", "of first",
              "busiest CPU ms", "of first", "pairs planned", "MB sent");
  std::vector<nlohmann::ordered_json> rows;
  const AttentionContestant& first = contestants.front();
  for (const AttentionContestant& c : contestants) {
    const double seconds = Median(c.seconds), compute = Median(c.compute);
    const std::string who =
        c.who.empty() ? absl::StrCat(parallel::DebugString(c.ways.forward, n), ", ", parallel::Name(c.kind))
                      : c.who;
    std::printf(
        "%-34s %9.2f %9.2f %8.2f %14.2f %8.2f %12.3f %12.3f\n", who.c_str(), seconds * 1e3,
        Median(c.forward) * 1e3, Median(first.seconds) / seconds, compute * 1e3,
        Median(first.compute) / compute,
        static_cast<double>(c.most_pairs) / static_cast<double>(std::max<int64_t>(1, first.most_pairs)),
        static_cast<double>(c.most_sent) / 1e6);
    rows.push_back({{"bench", "attention"},
                    {"way", who},
                    {"split", parallel::Name(c.kind)},
                    {"ranks", n},
                    {"hosts", world->topology().num_hosts()},
                    {"heads", flags.heads},
                    {"kv_heads", flags.kv_heads},
                    {"head_dim", flags.head_dim},
                    {"dtype", flags.dtype},
                    {"seconds", seconds},
                    {"busiest_cpu_s", compute},
                    {"most_pairs", c.most_pairs},
                    {"most_bytes_sent", c.most_sent}});
  }
  return WriteRows(rows, flags.json);
}

}  // namespace

void AddBenchAttention(CLI::App& bench, const Selected& selected) {
  CLI::App* app = bench.add_subcommand(
      "attention", "Attention of sequences that are split over ranks, in every way; under mpirun");
  const auto flags = std::make_shared<AttentionFlags>();
  app->add_option("--lengths", flags->lengths, "Tokens of each sequence")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->delimiter(',')
      ->capture_default_str();
  app->add_option("--heads", flags->heads, "Query heads")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 10))
      ->capture_default_str();
  app->add_option("--kv-heads", flags->kv_heads, "Key/value heads")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 10))
      ->capture_default_str();
  app->add_option("--head-dim", flags->head_dim, "Elements of a head")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 10))
      ->capture_default_str();
  app->add_option("--dtype", flags->dtype, "f32 or bf16")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  app->add_option("--threads", flags->threads, "Of each rank")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app->add_option("--turns", flags->turns, "Turns of each, of which the median counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app->add_option("--json", flags->json, "Write one JSON object a row to this file");
  app->callback([=] { selected([=] { return BenchAttention(*flags); }); });
}

}  // namespace cohort::tools
