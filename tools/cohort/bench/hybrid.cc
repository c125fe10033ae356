// cohort bench hybrid: whole training steps (forward, backward, sums of gradients, clipping, AdamW) on sequences of mixed
// lengths: hybrid data parallelism beside static meshes with the smallest context axis that holds the longest sequence,
// in one run. They take turns; the median counts. Losses of the first step are compared: all train the same model.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/mesh_communicators.h"
#include "parallel/parallel_model.h"
#include "runtime/optim/optimizer.h"
#include "tools/cohort/bench/bench.h"
#include "tools/cohort/bench/model.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

using parallel::HybridPlan;
using runtime::Tensor;

constexpr absl::Duration kHybridPatience = absl::Minutes(5);
// A token of a block takes 72 width^2 FLOP, and a ring of four moves 18 width bytes of it in f32, 12 in bf16. 128 wide, on
// hosts of 200 GFLOP/s with 1 Gbit/s, arithmetic takes a third of the traffic's time; so it does 3,400 wide in bf16 on
// hosts of eight devices of 400 TFLOP/s with 400 Gbit/s.
const std::vector<std::string> kHybridShape = {"model.hidden_size=128",     "model.intermediate_size=384",
                                               "model.num_hidden_layers=4", "model.num_attention_heads=2",
                                               "model.head_dim=64",         "model.vocab_size=512"};

struct HybridFlags {
  std::shared_ptr<BenchFlags> bench = std::make_shared<BenchFlags>();
  int sequences = 512, steps = 3;
  int64_t budget = 1024, median = 64;
  double spread = 1.2;
  uint32_t seed = 1;
  std::string lengths, sharding = "ddp";
};

// Random tokens, sequences of these lengths.
class MixedTokens final : public parallel::BatchSource {
 public:
  MixedTokens(std::vector<int64_t> lengths, int64_t vocabulary)
      : lengths_(std::move(lengths)), vocabulary_(static_cast<uint32_t>(vocabulary)) {}

  absl::StatusOr<parallel::Samples> Training(int64_t step, int64_t begin, int64_t count) override {
    std::vector<int32_t> tokens, targets, positions, offsets = {0};
    for (int64_t s = begin; s < begin + count; ++s) {
      std::mt19937 random(static_cast<uint32_t>(step * 1000003 + s));
      for (int64_t i = 0; i < lengths_[s]; ++i) {
        tokens.push_back(static_cast<int32_t>(random() % vocabulary_));
        positions.push_back(static_cast<int32_t>(i));
        if (i > 0) targets.push_back(tokens.back());
      }
      targets.push_back(-1);
      offsets.push_back(static_cast<int32_t>(tokens.size()));
    }
    runtime::Device& device = runtime::CpuDevice();
    const auto tensor = [&](const std::vector<int32_t>& values) {
      return Tensor::FromHost(device, {static_cast<int64_t>(values.size())}, absl::MakeConstSpan(values));
    };
    parallel::Samples samples;
    samples.tokens = {tensor(tokens), tensor(targets), tensor(positions), tensor(offsets), offsets};
    return samples;
  }
  absl::StatusOr<std::vector<int64_t>> TrainingLengths(int64_t, int64_t) override { return lengths_; }
  int64_t held_out() const override { return 0; }
  absl::StatusOr<parallel::Samples> HeldOut(int64_t, int64_t) override {
    return absl::UnimplementedError("a benchmark holds nothing out");
  }

 private:
  const std::vector<int64_t> lengths_;
  const uint32_t vocabulary_;
};

// Log-normal, or lines of a file in a random order. One is as long as there may be.
absl::StatusOr<std::vector<int64_t>> MixedLengths(const HybridFlags& flags, int ranks) {
  std::mt19937 random(flags.seed);
  const int64_t longest = flags.budget * ranks;
  std::vector<int64_t> lengths;
  if (flags.lengths.empty()) {
    std::lognormal_distribution<double> lognormal(std::log(static_cast<double>(flags.median)), flags.spread);
    for (int s = 0; s < flags.sequences; ++s) lengths.push_back(static_cast<int64_t>(lognormal(random)));
  } else {
    std::ifstream file(flags.lengths);
    int64_t length = 0;
    for (std::string line; std::getline(file, line); lengths.push_back(length)) {
      if (!absl::SimpleAtoi(line, &length) || length < 1)
        return absl::InvalidArgumentError(
            absl::StrCat(flags.lengths, ", line ", lengths.size() + 1, ": '", line, "' is no length"));
    }
    if (static_cast<int>(lengths.size()) < flags.sequences) {
      return absl::InvalidArgumentError(absl::StrCat(flags.lengths, " has ", lengths.size(),
                                                     " lengths, and a step takes ", flags.sequences));
    }
    for (size_t i = lengths.size() - 1; i > 0; --i) std::swap(lengths[i], lengths[random() % (i + 1)]);
    lengths.resize(static_cast<size_t>(flags.sequences));
  }
  for (int64_t& length : lengths) length = std::clamp<int64_t>(length, 1, longest);
  *std::max_element(lengths.begin(), lengths.end()) = longest;
  return lengths;
}

// One way of spreading the sequences, its model and its times.
struct HybridContestant {
  std::string who;
  int fixed_ranks = 0;
  parallel::ContextWays ways = {};
  std::unique_ptr<parallel::ParallelModel> model = nullptr;
  runtime::OptimizerState optimizer = {};
  std::vector<double> seconds = {};
  double loss = 0;  // of the first step

  absl::Status Step() {
    const bool first = optimizer.step == 0;
    COHORT_ASSIGN_OR_RETURN(const runtime::StepResult step, model->ComputeGradients(0));
    COHORT_ASSIGN_OR_RETURN(const double norm, model->GradientNorm());
    runtime::AdamWStep(model->slices(), {}, 1e-4, runtime::ClipFactor(norm, 1.0), optimizer);
    if (first) loss = step.sums.loss / static_cast<double>(step.sums.tokens);
    return model->AfterStep(step);
  }
};

absl::StatusOr<std::vector<HybridContestant>> MakeContestants(
    const HybridFlags& flags, const runtime::ModelConfig& config, const std::vector<int64_t>& lengths,
    const std::shared_ptr<comm::Communicator>& world) {
  const int local = world->topology().local_size();
  COHORT_ASSIGN_OR_RETURN(const int context, parallel::StaticContext(lengths, world->size(), flags.budget));
  std::vector<HybridContestant> contestants;
  contestants.push_back({"static, ring", context});
  if (context % local == 0 && context > local && local > 1 && config.num_attention_heads % local == 0) {
    const parallel::AttentionWay mix = {parallel::Moves::kKeysAndValues, local};
    contestants.push_back({absl::StrCat("static, ", DebugString(mix, context)), context, {mix, mix}});
  }
  contestants.push_back({"hybrid"});
  COHORT_ASSIGN_OR_RETURN(const parallel::Mesh mesh, parallel::MakeMesh({.shard = local}, *world));
  COHORT_ASSIGN_OR_RETURN(const parallel::Sharding sharding, parallel::ParseSharding(flags.sharding));
  for (HybridContestant& contestant : contestants) {
    parallel::ParallelOptions options = {.compute = *ParseDataType(flags.bench->dtype),
                                         .global_batch = static_cast<int64_t>(lengths.size()),
                                         .sharding = sharding,
                                         .context = {.ways = contestant.ways}};
    options.hybrid = {.tokens = flags.budget, .fixed_ranks = contestant.fixed_ranks};
    COHORT_ASSIGN_OR_RETURN(contestant.model, parallel::ParallelModel::Create(
                                                  config, runtime::CpuDevice(), options, mesh, world,
                                                  std::make_unique<MixedTokens>(lengths, config.vocab_size)));
    contestant.model->Initialize(1);
    contestant.optimizer = runtime::OptimizerState::For(contestant.model->slices());
  }
  return contestants;
}

absl::Status BenchHybrid(const HybridFlags& flags) {
  // Ranks may outnumber cores: who does not answer for a while is not lost.
  setenv("COHORT_PEER_SILENCE_MS", "60000", /*overwrite=*/0);
  COHORT_ASSIGN_OR_RETURN(const auto world, JoinWorld(kHybridPatience));
  const int n = world->size();
  SetBenchThreads(*flags.bench);
  COHORT_ASSIGN_OR_RETURN(const std::vector<int64_t> lengths, MixedLengths(flags, n));
  BenchFlags shape = *flags.bench;
  shape.overrides = kHybridShape;
  shape.overrides.push_back(absl::StrCat("model.max_position_embeddings=", flags.budget * n));
  shape.overrides.insert(shape.overrides.end(), flags.bench->overrides.begin(), flags.bench->overrides.end());
  COHORT_ASSIGN_OR_RETURN(const runtime::ModelConfig config, BenchModel(shape, {.dense = "", .moe = ""}));
  COHORT_ASSIGN_OR_RETURN(auto contestants, MakeContestants(flags, config, lengths, world));
  for (int step = -1; step < flags.steps; ++step) {  // the first one warms up
    for (HybridContestant& contestant : contestants) {
      COHORT_RETURN_IF_ERROR(world->Barrier().Wait());
      const auto begin = std::chrono::steady_clock::now();
      COHORT_RETURN_IF_ERROR(contestant.Step());
      COHORT_RETURN_IF_ERROR(world->Barrier().Wait());
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      if (world->rank() == 0) {
        std::fprintf(stderr, "step %d, %s: %.2f s\n", step + 1, contestant.who.c_str(), seconds);
      }
      if (step >= 0) contestant.seconds.push_back(seconds);
    }
  }
  const double loss = contestants.front().loss;
  for (const HybridContestant& contestant : contestants) {
    if (std::abs(contestant.loss - loss) > 1e-5 * loss && shape.dtype == "f32") {
      return absl::InternalError(absl::StrCat("the loss of ", contestant.who, " is ", contestant.loss,
                                              ", and that of ", contestants.front().who, " ", loss));
    }
  }
  if (world->rank() != 0) return absl::OkStatus();
  std::vector<int64_t> sorted = lengths;
  std::sort(sorted.begin(), sorted.end());
  int64_t tokens = 0, long_tokens = 0;
  for (const int64_t length : lengths) {
    tokens += length;
    if (length > flags.budget) long_tokens += length;
  }
  std::printf(
      "%.1f million parameters, %s; %d ranks on %d hosts, %ld tokens a rank at a time\n"
      "%zu sequences, %ld tokens a step; lengths: median %ld, 90%% below %ld, 99%% below %ld, longest %ld; "
      "%.0f%% of "
      "tokens in sequences that need several ranks\n",
      static_cast<double>(config.NumParameters()) / 1e6, flags.bench->dtype.c_str(), n,
      world->topology().num_hosts(), static_cast<long>(flags.budget), lengths.size(),
      static_cast<long>(tokens), static_cast<long>(sorted[sorted.size() / 2]),
      static_cast<long>(sorted[sorted.size() * 9 / 10]), static_cast<long>(sorted[sorted.size() * 99 / 100]),
      static_cast<long>(sorted.back()),
      100.0 * static_cast<double>(long_tokens) / static_cast<double>(tokens));
  std::printf("%-34s %10s %10s %12s\n", "training steps", "ms", "tokens/s", "loss");
  std::vector<nlohmann::ordered_json> json;
  double fastest_static = 0;
  for (const HybridContestant& c : contestants) {
    const double seconds = Median(c.seconds), speed = static_cast<double>(tokens) / seconds;
    if (c.fixed_ranks > 0) fastest_static = std::max(fastest_static, speed);
    std::printf("%-34s %10.1f %10.0f %12.6f\n", c.who.c_str(), seconds * 1e3, speed, c.loss);
    nlohmann::ordered_json row = BenchRow("hybrid", config, shape);
    row.update({{"who", c.who},
                {"ranks", n},
                {"hosts", world->topology().num_hosts()},
                {"sequences", lengths.size()},
                {"tokens", tokens},
                {"longest", sorted.back()},
                {"budget", flags.budget},
                {"context", c.fixed_ranks},
                {"loss", c.loss},
                {"tokens_per_s", speed},
                {"step_s", seconds}});
    json.push_back(std::move(row));
  }
  const double speed = static_cast<double>(tokens) / Median(contestants.back().seconds);
  std::printf("hybrid: %.2f times the tokens/s of the faster static mesh\n", speed / fastest_static);
  return WriteRows(json, flags.bench->json);
}

}  // namespace

void AddBenchHybrid(CLI::App& bench, const Selected& selected) {
  CLI::App* app =
      bench.add_subcommand("hybrid",
                           "Training steps on sequences of mixed lengths: hybrid data parallelism "
                           "beside static meshes; under mpirun");
  const auto flags = std::make_shared<HybridFlags>();
  flags->bench->dtype = "f32";
  AddBenchFlags(*app, flags->bench, 1);
  const auto count = [&](const char* name, auto& value, const char* what) {
    app->add_option(name, value, what)->check(CLI::Range(1, 1 << 24))->capture_default_str();
  };
  count("--sequences", flags->sequences, "Sequences a step; one is as long as all ranks hold");
  count("--budget", flags->budget, "Tokens that a rank holds at a time");
  count("--median", flags->median, "Tokens of the middle one: lengths are log-normal");
  app->add_option("--spread", flags->spread, "Standard deviation of the logarithm of lengths")
      ->check(CLI::Range(0.0, 4.0))
      ->capture_default_str();
  app->add_option("--lengths", flags->lengths, "Take lengths from this file instead, one a line")
      ->check(CLI::ExistingFile);
  app->add_option("--sharding", flags->sharding, "As parallel.sharding")->capture_default_str();
  count("--steps", flags->steps, "Timed steps of each, of which the median counts");
  app->add_option("--seed", flags->seed, "Of lengths")->capture_default_str();
  app->callback([=] { selected([=] { return BenchHybrid(*flags); }); });
}

}  // namespace cohort::tools
