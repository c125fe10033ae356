// cohort bench hybrid: sequences of mixed lengths over all ranks as hybrid data parallelism, beside a static mesh with the
// smallest context axis that holds the longest one, in one run. What they compute is one block without its norms:
// matrices of its size, forward and both gradients, and attention over the ranks that hold a sequence. They take turns;
// the median counts.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/sequence/context_attention.h"
#include "parallel/sequence/hybrid_batches.h"
#include "runtime/ops/ops.h"
#include "tools/cohort/bench.h"
#include "tools/cohort/bench_model.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

using parallel::HybridCosts;
using parallel::HybridPlan;
using runtime::Tensor;

constexpr absl::Duration kHybridPatience = absl::Minutes(5);
constexpr int64_t kProbeTokens = 256;  // of what prices are measured with
constexpr int kProbes = 5;

struct HybridFlags {
  int sequences = 64, turns = 3, threads = 1;
  int64_t budget = 1024, median = 96, heads = 8, kv_heads = 2, head_dim = 64, mlp = 4;
  double spread = 1.5;
  uint32_t seed = 1;
  std::string dtype = "f32", json;
};

double HybridSecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// One block on this rank.
class MixedBlock {
 public:
  MixedBlock(const HybridFlags& flags, std::shared_ptr<comm::Communicator> world)
      : flags_(flags),
        world_(std::move(world)),
        dtype_(flags.dtype == "bf16" ? DataType::kBF16 : DataType::kF32) {
    const int64_t d = flags.heads * flags.head_dim;
    // Query, key, value and output projections and a gated MLP, as one matrix: what counts is their size.
    const int64_t out = 2 * d + 2 * flags.kv_heads * flags.head_dim + 3 * flags.mlp * d;
    weight_ = Random({out, d}, 1);
    gradient_ = Tensor::Zeros(device_, {out, d}, DataType::kF32);
  }

  absl::Status MicroBatch(const HybridPlan& plan, int index, const std::vector<int64_t>& lengths) {
    const parallel::HybridMicroBatch& batch = plan.micro_batches[index];
    parallel::ContextGroup group{world_, {}, world_->rank() - batch.first_rank};
    for (int r = 0; r < batch.ranks; ++r) group.members.push_back(batch.first_rank + r);
    COHORT_ASSIGN_OR_RETURN(const auto split, plan.Split(index, parallel::SplitKind::kZigzag, lengths));
    COHORT_ASSIGN_OR_RETURN(const auto core, MakeContextAttention(group, split, {}, device_));
    Matrices(split.tokens(group.rank));
    return Attention(*core, split.tokens(group.rank));
  }

  void Matrices(int64_t tokens) {
    const Tensor x = Buffer(tokens, weight_.dim(1), 1), y = Buffer(tokens, weight_.dim(0), 2);
    runtime::Ops& ops = device_.ops();
    ops.MatMul(x, weight_, y, {.transpose_b = true});
    ops.MatMul(y, weight_, x);
    ops.MatMul(y, x, gradient_, {.transpose_a = true, .accumulate = true});
    // Values stay where arithmetic is fast: products are not fed back.
    device_.ops().Fill(x, 0.5);
  }

  absl::Status Attention(runtime::AttentionCore& core, int64_t tokens) {
    const auto rows = [&](int64_t heads, int which) {
      return Buffer(tokens, heads * flags_.head_dim, which).View({tokens, heads, flags_.head_dim});
    };
    const Tensor q = rows(flags_.heads, 3), k = rows(flags_.kv_heads, 4), v = rows(flags_.kv_heads, 5);
    std::unique_ptr<runtime::AttentionCore::Saved> saved;
    COHORT_RETURN_IF_ERROR(core.Forward(q, k, v, 0.125, &saved).status());
    return core.Backward(rows(flags_.heads, 6), *saved, rows(flags_.heads, 7), rows(flags_.kv_heads, 8),
                         rows(flags_.kv_heads, 9));
  }

  absl::Status AddGradients() {
    return world_
        ->AllReduce(gradient_.raw(), gradient_.raw(), static_cast<size_t>(gradient_.size()), DataType::kF32)
        .Wait();
  }

  // Prices on the slowest rank.
  absl::StatusOr<HybridCosts> Measure() {
    std::vector<double> matrices, attention, moving;
    COHORT_ASSIGN_OR_RETURN(const auto split,
                            parallel::TokenSplit::Create(parallel::SplitKind::kZigzag, 1, {kProbeTokens}));
    COHORT_ASSIGN_OR_RETURN(const auto core,
                            MakeContextAttention({world_, {world_->rank()}, 0}, split, {}, device_));
    const int n = world_->size(), rank = world_->rank();
    const size_t bytes = kProbeTokens * 2 * flags_.kv_heads * flags_.head_dim * (2 * SizeOf(dtype_) + 4);
    std::vector<char> out(bytes), in(bytes);
    for (int i = 0; i < kProbes; ++i) {
      auto begin = std::chrono::steady_clock::now();
      Matrices(kProbeTokens);
      matrices.push_back(HybridSecondsSince(begin));
      begin = std::chrono::steady_clock::now();
      COHORT_RETURN_IF_ERROR(Attention(*core, kProbeTokens));
      attention.push_back(HybridSecondsSince(begin));
      COHORT_RETURN_IF_ERROR(world_->Barrier().Wait());
      begin = std::chrono::steady_clock::now();
      const comm::Work works[] = {world_->Recv(in.data(), bytes, DataType::kU8, (rank + n - 1) % n),
                                  world_->Send(out.data(), bytes, DataType::kU8, (rank + 1) % n)};
      COHORT_RETURN_IF_ERROR(parallel::WaitForAll(works));
      moving.push_back(HybridSecondsSince(begin));
    }
    double prices[] = {Median(matrices) / kProbeTokens,
                       Median(attention) / (static_cast<double>(kProbeTokens) * (kProbeTokens + 1) / 2),
                       Median(moving) / kProbeTokens};
    COHORT_RETURN_IF_ERROR(world_->AllReduce(prices, prices, 3, DataType::kF64, comm::ReduceOp::kMax).Wait());
    return HybridCosts{prices[0], prices[1], prices[2], 0};
  }

 private:
  Tensor Random(runtime::Shape shape, uint32_t purpose) {
    const Tensor tensor = Tensor::Empty(device_, std::move(shape), dtype_);
    device_.ops().FillNormal(tensor, flags_.seed, purpose, 0, 0.02);
    return tensor;
  }
  // Rows of a buffer that grows.
  Tensor Buffer(int64_t tokens, int64_t width, int which) {
    Tensor& buffer = buffers_[which];
    if (!buffer.defined() || buffer.dim(0) < tokens)
      buffer = Random({tokens, width}, static_cast<uint32_t>(10 + which));
    return buffer.Slice(0, tokens);
  }

  const HybridFlags& flags_;
  const std::shared_ptr<comm::Communicator> world_;
  const DataType dtype_;
  runtime::Device& device_ = runtime::CpuDevice();
  Tensor weight_, gradient_;
  std::map<int, Tensor> buffers_;
};

absl::Status BenchHybrid(const HybridFlags& flags) {
  // Ranks may outnumber cores: who does not answer for a while is not lost.
  setenv("COHORT_PEER_SILENCE_MS", "60000", /*overwrite=*/0);
  COHORT_ASSIGN_OR_RETURN(const auto world, JoinWorld(kHybridPatience));
  const int n = world->size();
  if (flags.heads % flags.kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv-heads ", flags.kv_heads, " must divide --heads ", flags.heads));
  }
  runtime::SetCpuThreads(flags.threads);
  std::mt19937 random(flags.seed);
  std::lognormal_distribution<double> lognormal(std::log(static_cast<double>(flags.median)), flags.spread);
  std::vector<int64_t> lengths;
  for (int s = 0; s < flags.sequences; ++s) {
    lengths.push_back(std::clamp<int64_t>(static_cast<int64_t>(lognormal(random)), 1, flags.budget * n));
  }
  lengths[flags.sequences / 2] = flags.budget * n;  // the longest there may be

  MixedBlock block(flags, world);
  COHORT_RETURN_IF_ERROR(block.Measure().status());  // warms up
  COHORT_ASSIGN_OR_RETURN(const HybridCosts costs, block.Measure());
  struct Row {
    const char* who;
    HybridPlan plan;
    std::vector<double> seconds = {};
  };
  COHORT_ASSIGN_OR_RETURN(HybridPlan hybrid, PlanHybridBatches(lengths, n, flags.budget, costs));
  COHORT_ASSIGN_OR_RETURN(const int context, parallel::StaticContext(lengths, n, flags.budget));
  COHORT_ASSIGN_OR_RETURN(HybridPlan fixed, parallel::PlanStaticBatches(lengths, n, context, flags.budget));
  Row rows[] = {{"static mesh", std::move(fixed)}, {"hybrid", std::move(hybrid)}};
  for (const Row& row : rows) COHORT_RETURN_IF_ERROR(CheckHybridPlan(row.plan, lengths));

  for (int turn = -1; turn < flags.turns; ++turn) {  // the first one warms up
    for (Row& row : rows) {
      COHORT_RETURN_IF_ERROR(world->Barrier().Wait());
      const auto begin = std::chrono::steady_clock::now();
      for (const int index : row.plan.Of(world->rank())) {
        COHORT_RETURN_IF_ERROR(block.MicroBatch(row.plan, index, lengths));
      }
      COHORT_RETURN_IF_ERROR(block.AddGradients());
      double seconds = HybridSecondsSince(begin);
      COHORT_RETURN_IF_ERROR(
          world->AllReduce(&seconds, &seconds, 1, DataType::kF64, comm::ReduceOp::kMax).Wait());
      if (turn >= 0) row.seconds.push_back(seconds);
    }
  }
  if (world->rank() != 0) return absl::OkStatus();
  int64_t tokens = 0;
  for (const int64_t length : lengths) tokens += length;
  std::printf(
      "%d sequences, %ld tokens, the longest %ld; %d ranks on %d hosts, %ld tokens a rank; context axis %d\n"
      "measured: %.3g us a token, %.3g ns a pair, %.3g us a token moved\n",
      flags.sequences, static_cast<long>(tokens), static_cast<long>(flags.budget * n), n,
      world->topology().num_hosts(), static_cast<long>(flags.budget), context, costs.token * 1e6,
      costs.pair * 1e9, costs.moved_token * 1e6);
  std::printf("%-14s %10s %10s %12s %14s %14s\n", "", "step ms", "tokens/s", "planned ms", "ranks busy",
              "tokens moved");
  std::vector<nlohmann::ordered_json> json;
  for (const Row& row : rows) {
    const parallel::HybridTime planned = SimulateHybrid(row.plan, lengths, costs);
    const double seconds = Median(row.seconds), speed = static_cast<double>(tokens) / seconds;
    std::printf("%-14s %10.1f %10.0f %12.1f %14.3f %14ld\n", row.who, seconds * 1e3, speed,
                planned.seconds * 1e3, planned.busy / planned.seconds, static_cast<long>(planned.moved));
    json.push_back({{"bench", "hybrid"},
                    {"who", row.who},
                    {"ranks", n},
                    {"hosts", world->topology().num_hosts()},
                    {"tokens", tokens},
                    {"budget", flags.budget},
                    {"context", context},
                    {"step_s", seconds},
                    {"planned_s", planned.seconds},
                    {"tokens_moved", planned.moved}});
  }
  std::printf("hybrid: %.2f times the tokens/s\n", Median(rows[0].seconds) / Median(rows[1].seconds));
  return WriteRows(json, flags.json);
}

}  // namespace

void AddBenchHybrid(CLI::App& bench, const Selected& selected) {
  CLI::App* app = bench.add_subcommand(
      "hybrid", "Sequences of mixed lengths: hybrid data parallelism beside a static mesh; under mpirun");
  const auto flags = std::make_shared<HybridFlags>();
  const auto count = [&](const char* name, auto& value, const char* what) {
    app->add_option(name, value, what)->check(CLI::Range(1, 1 << 24))->capture_default_str();
  };
  count("--sequences", flags->sequences, "Sequences a step; one is as long as fits");
  count("--budget", flags->budget, "Tokens that a rank holds at a time");
  count("--median", flags->median, "Tokens of the middle one: lengths are log-normal");
  app->add_option("--spread", flags->spread, "Standard deviation of the logarithm of lengths")
      ->check(CLI::Range(0.0, 4.0))
      ->capture_default_str();
  count("--heads", flags->heads, "Query heads");
  count("--kv-heads", flags->kv_heads, "Key/value heads");
  count("--head-dim", flags->head_dim, "Elements of a head");
  count("--mlp", flags->mlp, "Width of the MLP over that of the model");
  app->add_option("--dtype", flags->dtype, "f32 or bf16")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  count("--threads", flags->threads, "Of each rank");
  count("--turns", flags->turns, "Turns of each, of which the median counts");
  app->add_option("--seed", flags->seed, "Of lengths and values")->capture_default_str();
  app->add_option("--json", flags->json, "Write one JSON object a row to this file");
  app->callback([=] { selected([=] { return BenchHybrid(*flags); }); });
}

}  // namespace cohort::tools
