// cohort bench train-step: the speed of a whole training step (forward, backward, clipping, AdamW) as a share
// of the matrix rate that the same run measures; under mpirun also how it scales.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "parallel/mesh_communicators.h"
#include "parallel/parallel_model.h"
#include "runtime/ops/machine_rates.h"
#include "runtime/optim/optimizer.h"
#include "runtime/random/philox.h"
#include "tools/cohort/bench.h"
#include "tools/cohort/bench_model.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

constexpr BenchShape kShape = {.dense = R"(  num_hidden_layers: 4
  max_position_embeddings: 512
)",
                               .moe = R"(  num_hidden_layers: 3
  max_position_embeddings: 512
  num_experts: 8
  num_experts_per_tok: 2
  moe_intermediate_size: 2816
)"};

struct TrainStepFlags {
  std::shared_ptr<BenchFlags> bench = std::make_shared<BenchFlags>();
  int64_t sequence = 512;
  int64_t batch = 32;  // sequences a step on each rank
  int64_t micro_batch = 8;
  int steps = 3;
  int expert = 1;
  int shard = 0;                                // 0: the ranks of a host
  std::vector<std::string> sharding = {"ddp"};  // several: in turns
  std::string secondary, gather_codec, reduce_codec;
  std::vector<int> tensor = {1};  // several: in turns
  bool split_batch = false;       // tensor groups with and without halves, in turns
  bool recompute = false;
  bool no_alone = false;
};

// Random tokens, all sequences of one length: what a step costs does not depend on what they say.
class RandomTokens final : public parallel::BatchSource {
 public:
  RandomTokens(int64_t sequence, int64_t vocabulary) : sequence_(sequence), vocabulary_(vocabulary) {}

  absl::StatusOr<parallel::Samples> Training(int64_t step, int64_t begin, int64_t count) override {
    const int64_t size = count * sequence_;
    std::vector<int32_t> tokens(size), targets(size), positions(size), offsets(count + 1);
    uint64_t state = static_cast<uint64_t>(step * 1000003 + begin) * 0x9e3779b97f4a7c15u + 1;
    for (int64_t i = 0; i < size; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      tokens[i] = static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocabulary_));
      positions[i] = static_cast<int32_t>(i % sequence_);
      targets[i > 0 ? i - 1 : size - 1] = tokens[i];
    }
    for (int64_t s = 0; s <= count; ++s) offsets[s] = static_cast<int32_t>(s * sequence_);
    runtime::Device& device = runtime::CpuDevice();
    using runtime::Tensor;
    parallel::Samples samples;
    samples.tokens = {.tokens = Tensor::FromHost(device, {size}, absl::Span<const int32_t>(tokens)),
                      .targets = Tensor::FromHost(device, {size}, absl::Span<const int32_t>(targets)),
                      .positions = Tensor::FromHost(device, {size}, absl::Span<const int32_t>(positions)),
                      .offsets = Tensor::FromHost(device, {count + 1}, absl::Span<const int32_t>(offsets)),
                      .host_offsets = offsets};
    return samples;
  }
  int64_t held_out() const override { return 0; }
  absl::StatusOr<parallel::Samples> HeldOut(int64_t, int64_t) override {
    return absl::UnimplementedError("a benchmark holds nothing out");
  }

 private:
  const int64_t sequence_, vocabulary_;
};

// A model over some ranks and its optimizer; one step of both, timed.
class Stepper {
 public:
  static absl::StatusOr<Stepper> Create(const runtime::ModelConfig& config, const TrainStepFlags& flags,
                                        std::shared_ptr<comm::Communicator> world, parallel::MeshShape shape,
                                        const parallel::Sharding& sharding, bool split_batch) {
    Stepper stepper;
    COHORT_ASSIGN_OR_RETURN(const parallel::Mesh mesh, parallel::MakeMesh(shape, *world));
    const int ranks = world->size();
    COHORT_ASSIGN_OR_RETURN(
        stepper.model_,
        parallel::ParallelModel::Create(
            config, runtime::CpuDevice(),
            {.compute = *ParseDataType(flags.bench->dtype),
             .recompute = flags.recompute,
             .global_batch = flags.batch * ranks,
             .micro_batch = flags.micro_batch,
             .sharding = sharding,
             .split_batch = split_batch ? std::optional(parallel::SplitRule()) : std::nullopt},
            mesh, std::move(world), std::make_unique<RandomTokens>(flags.sequence, config.vocab_size)));
    stepper.model_->Initialize(1);
    stepper.optimizer_ = runtime::OptimizerState::For(stepper.model_->slices());
    stepper.tokens_ = flags.batch * ranks * flags.sequence;
    return stepper;
  }

  const parallel::StateMemory& memory() const { return model_->parameters().plan(); }

  absl::StatusOr<double> TokensPerSecond() {
    COHORT_RETURN_IF_ERROR(model_->Barrier());
    const auto begin = std::chrono::steady_clock::now();
    COHORT_ASSIGN_OR_RETURN(const runtime::StepResult step, model_->ComputeGradients(optimizer_.step));
    COHORT_ASSIGN_OR_RETURN(const double norm, model_->GradientNorm());
    runtime::AdamWStep(model_->slices(), {}, 1e-4, runtime::ClipFactor(norm, 1.0), optimizer_);
    COHORT_RETURN_IF_ERROR(model_->AfterStep(step));
    COHORT_RETURN_IF_ERROR(model_->Barrier());
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return static_cast<double>(tokens_) / seconds;
  }

 private:
  Stepper() = default;
  std::unique_ptr<parallel::ParallelModel> model_;
  runtime::OptimizerState optimizer_;
  int64_t tokens_ = 0;
};

// One arrangement of the same ranks, and how fast it was.
struct Variant {
  std::string sharding;
  parallel::MeshShape shape;
  bool split_batch;
  Stepper stepper;
  std::vector<double> speeds;

  std::string Name() const {
    return absl::StrCat(sharding, ", ", shape.DebugString(), split_batch ? ", halves" : "");
  }
};

// The mesh of one variant: the shard axis has what tensor groups leave of a host.
parallel::MeshShape ShapeOf(const TrainStepFlags& flags, int tensor, int ranks_on_host) {
  return {.shard = flags.shard > 0 ? flags.shard : std::max(1, ranks_on_host / tensor),
          .tensor = tensor,
          .expert = flags.expert};
}

// The most memory that this process has had in use so far.
int64_t PeakResidentBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

absl::Status BenchTrainStep(const TrainStepFlags& flags) {
  COHORT_ASSIGN_OR_RETURN(const runtime::ModelConfig config, BenchModel(*flags.bench, kShape));
  COHORT_ASSIGN_OR_RETURN(auto world, JoinWorld(absl::Minutes(5)));
  SetBenchThreads(*flags.bench);
  std::vector<Variant> variants;
  for (const std::string& name : flags.sharding) {
    COHORT_ASSIGN_OR_RETURN(
        const parallel::Sharding sharding,
        parallel::ParseSharding(name, flags.secondary, flags.gather_codec, flags.reduce_codec));
    for (const int tensor : flags.tensor) {
      const parallel::MeshShape shape = ShapeOf(flags, tensor, world->topology().local_size());
      for (const bool halves : {false, true}) {
        if (halves && (tensor == 1 || !flags.split_batch)) continue;
        COHORT_ASSIGN_OR_RETURN(Stepper stepper,
                                Stepper::Create(config, flags, world, shape, sharding, halves));
        variants.push_back({.sharding = name,
                            .shape = shape,
                            .split_batch = halves,
                            .stepper = std::move(stepper),
                            .speeds = {}});
      }
    }
  }
  // With more than one rank, rank 0 also trains alone, in turns, while the others wait in the barrier.
  std::unique_ptr<Stepper> alone;
  if (world->size() > 1 && world->rank() == 0 && !flags.no_alone) {
    COHORT_ASSIGN_OR_RETURN(Stepper single,
                            Stepper::Create(config, flags, comm::Communicator::Single(), {}, {}, false));
    alone = std::make_unique<Stepper>(std::move(single));
  }
  const DataType dtype = *ParseDataType(flags.bench->dtype);
  std::vector<double> alone_speeds, rates;
  for (int step = -1; step < flags.steps; ++step) {  // the first one warms up
    double rate = 0, alone_speed = 0;
    if (world->rank() == 0) {
      rate = runtime::MeasureMatMulRate(dtype);
      if (alone != nullptr) {
        COHORT_ASSIGN_OR_RETURN(alone_speed, alone->TokensPerSecond());
      }
    }
    for (Variant& variant : variants) {
      COHORT_ASSIGN_OR_RETURN(const double speed, variant.stepper.TokensPerSecond());
      if (step < 0) continue;
      variant.speeds.push_back(speed);
      if (world->rank() == 0) {
        std::fprintf(stderr, "step %d, %s: %.0f tokens/s\n", step + 1, variant.Name().c_str(), speed);
      }
    }
    if (step < 0) continue;
    rates.push_back(rate);
    alone_speeds.push_back(alone_speed);
  }
  if (world->rank() != 0) return absl::OkStatus();
  std::printf("%s, %.0f million parameters, %d rank(s) of %d thread(s), %d x %d tokens a rank\n",
              config.model_type.c_str(), static_cast<double>(config.NumParameters()) / 1e6, world->size(),
              runtime::CpuThreads(), static_cast<int>(flags.batch), static_cast<int>(flags.sequence));
  const double gemm = Median(rates) * world->size(), first = Median(variants.front().speeds);
  std::vector<nlohmann::ordered_json> rows;
  for (const Variant& variant : variants) {
    const double tokens_per_s = Median(variant.speeds);
    const double flops = tokens_per_s * config.TrainFlopsPerToken(flags.sequence);
    nlohmann::ordered_json row = BenchRow("train-step", config, *flags.bench);
    row.update({{"ranks", world->size()},
                {"sequence_length", flags.sequence},
                {"batch", flags.batch},
                {"micro_batch", flags.micro_batch},
                {"sharding", variant.sharding},
                {"shard", variant.shape.shard},
                {"tensor", variant.shape.tensor},
                {"split_batch", variant.split_batch},
                {"peak_resident_bytes", PeakResidentBytes()},
                {"state_peak_bytes", variant.stepper.memory().peak},
                {"tokens_per_s", tokens_per_s},
                {"model_flops_per_s", flops},
                {"gemm_flops_per_s", gemm},
                {"mfu", flops / gemm}});
    std::printf(
        "  %.0f tokens/s, %.1f GFLOP/s of the model; matrix products alone %.1f GFLOP/s; share %.3f\n",
        tokens_per_s, flops / 1e9, gemm / 1e9, flops / gemm);
    if (world->size() > 1) {
      std::printf("  %s, over neighbours of %d: %s\n", variant.Name().c_str(), variant.shape.shard,
                  variant.stepper.memory().DebugString().c_str());
    }
    if (variants.size() > 1) {
      row["against_first"] = tokens_per_s / first;
      std::printf("  %.2f times as fast as %s, in turns\n", tokens_per_s / first,
                  variants.front().Name().c_str());
    }
    if (alone != nullptr) {
      row["one_rank_tokens_per_s"] = Median(alone_speeds);
      row["scaling"] = tokens_per_s / Median(alone_speeds);
      std::printf("  one rank alone, in turns: %.0f tokens/s; %d ranks are %.2f times as fast\n",
                  Median(alone_speeds), world->size(), tokens_per_s / Median(alone_speeds));
    }
    rows.push_back(std::move(row));
  }
  return WriteRows(rows, flags.bench->json);
}

}  // namespace

void AddBenchTrainStep(CLI::App& bench, const Selected& selected) {
  CLI::App* app = bench.add_subcommand(
      "train-step", "Whole training steps on random tokens, as a share of the matrix rate");
  const auto flags = std::make_shared<TrainStepFlags>();
  AddBenchFlags(*app, flags->bench, 1);
  app->add_option("--sequence", flags->sequence, "Tokens of a sequence")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--batch", flags->batch, "Sequences a step on each rank")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--micro-batch", flags->micro_batch, "Sequences computed at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--steps", flags->steps, "Timed steps; the median counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--expert", flags->expert, "Under mpirun: ranks among which experts are divided")
      ->capture_default_str();
  app->add_option("--sharding", flags->sharding,
                  "How state is split over ranks, as parallel.sharding; several (a,b) take turns")
      ->delimiter(',')
      ->capture_default_str();
  app->add_option("--shard", flags->shard, "Neighbours of the shard axis; default: the ranks of a host");
  app->add_option("--tensor", flags->tensor, "Ranks that divide every matrix; several (a,b) take turns")
      ->delimiter(',')
      ->capture_default_str();
  app->add_flag(
      "--split-batch", flags->split_batch,
      "Tensor groups also with batches in two halves, one computed while the other travels, in turns");
  app->add_option("--secondary", flags->secondary, "As parallel.secondary");
  app->add_option("--gather-codec", flags->gather_codec, "As parallel.gather_codec");
  app->add_option("--reduce-codec", flags->reduce_codec, "As parallel.reduce_codec");
  app->add_flag("--recompute", flags->recompute, "Recompute activations in the backward");
  app->add_flag("--no-alone", flags->no_alone, "Under mpirun: do not train on one rank alone in turns");
  app->callback([=] { selected([=] { return BenchTrainStep(*flags); }); });
}

}  // namespace cohort::tools
