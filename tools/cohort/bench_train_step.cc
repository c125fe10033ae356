// cohort bench train-step: the speed of a whole training step (forward, backward, clipping, AdamW) as a share
// of the matrix rate that the same run measures; under mpirun also how it scales.
#include <chrono>
#include <cstdio>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "parallel/mesh_communicators.h"
#include "parallel/parallel_model.h"
#include "runtime/ops/machine_rates.h"
#include "runtime/optim/optimizer.h"
#include "runtime/random/philox.h"
#include "tools/cohort/bench.h"
#include "tools/cohort/bench_model.h"
#include "tools/cohort/random_tokens.h"
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
  bool recompute = false;
  bool deterministic = false;
  bool no_alone = false;
};

// A model over some ranks and its optimizer; one step of both, timed.
class Stepper {
 public:
  static absl::StatusOr<Stepper> Create(const runtime::ModelConfig& config, const TrainStepFlags& flags,
                                        std::shared_ptr<comm::Communicator> world, parallel::MeshShape shape,
                                        const parallel::Sharding& sharding, bool deterministic = false) {
    Stepper stepper;
    COHORT_ASSIGN_OR_RETURN(const parallel::Mesh mesh, parallel::MakeMesh(shape, *world));
    const int ranks = world->size();
    COHORT_ASSIGN_OR_RETURN(
        stepper.model_,
        parallel::ParallelModel::Create(config, runtime::CpuDevice(),
                                        {.compute = *ParseDataType(flags.bench->dtype),
                                         .recompute = flags.recompute,
                                         .global_batch = flags.batch * ranks,
                                         .micro_batch = flags.micro_batch,
                                         .sharding = sharding,
                                         .deterministic = deterministic},
                                        mesh, std::move(world),
                                        std::make_unique<RandomTokens>(flags.sequence, config.vocab_size)));
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
  bool deterministic;
  Stepper stepper;
  std::vector<double> speeds;
};

absl::Status BenchTrainStep(const TrainStepFlags& flags) {
  COHORT_ASSIGN_OR_RETURN(const runtime::ModelConfig config, BenchModel(*flags.bench, kShape));
  COHORT_ASSIGN_OR_RETURN(auto world, JoinWorld(absl::Minutes(5)));
  SetBenchThreads(*flags.bench);
  const parallel::MeshShape shape = {.shard = flags.shard > 0 ? flags.shard : world->topology().local_size(),
                                     .expert = flags.expert};
  std::vector<Variant> variants;
  for (const std::string& name : flags.sharding) {
    COHORT_ASSIGN_OR_RETURN(
        const parallel::Sharding sharding,
        parallel::ParseSharding(name, flags.secondary, flags.gather_codec, flags.reduce_codec));
    for (const bool deterministic : {false, true}) {
      if (deterministic && !flags.deterministic) continue;
      COHORT_ASSIGN_OR_RETURN(Stepper stepper,
                              Stepper::Create(config, flags, world, shape, sharding, deterministic));
      variants.push_back({.sharding = deterministic ? name + ", deterministic" : name,
                          .deterministic = deterministic,
                          .stepper = std::move(stepper),
                          .speeds = {}});
    }
  }
  // With more than one rank, rank 0 also trains alone, in turns, while the others wait in the barrier.
  std::unique_ptr<Stepper> alone;
  if (world->size() > 1 && world->rank() == 0 && !flags.no_alone) {
    COHORT_ASSIGN_OR_RETURN(Stepper single,
                            Stepper::Create(config, flags, comm::Communicator::Single(), {}, {}));
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
        std::fprintf(stderr, "step %d, %s: %.0f tokens/s\n", step + 1, variant.sharding.c_str(), speed);
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
                {"shard", shape.shard},
                {"deterministic", variant.deterministic},
                {"state_peak_bytes", variant.stepper.memory().peak},
                {"tokens_per_s", tokens_per_s},
                {"model_flops_per_s", flops},
                {"gemm_flops_per_s", gemm},
                {"mfu", flops / gemm}});
    std::printf(
        "  %.0f tokens/s, %.1f GFLOP/s of the model; matrix products alone %.1f GFLOP/s; share %.3f\n",
        tokens_per_s, flops / 1e9, gemm / 1e9, flops / gemm);
    if (world->size() > 1) {
      std::printf("  sharding %s over neighbours of %d: %s\n", variant.sharding.c_str(), shape.shard,
                  variant.stepper.memory().DebugString().c_str());
    }
    if (variants.size() > 1) {
      row["against_first"] = tokens_per_s / first;
      std::printf("  %.2f times as fast as %s, in turns\n", tokens_per_s / first,
                  variants.front().sharding.c_str());
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
  app->add_option("--secondary", flags->secondary, "As parallel.secondary");
  app->add_option("--gather-codec", flags->gather_codec, "As parallel.gather_codec");
  app->add_option("--reduce-codec", flags->reduce_codec, "As parallel.reduce_codec");
  app->add_flag("--deterministic", flags->deterministic,
                "Each sharding also with train.deterministic, in turns");
  app->add_flag("--recompute", flags->recompute, "Recompute activations in the backward");
  app->add_flag("--no-alone", flags->no_alone, "Under mpirun: do not train on one rank alone in turns");
  app->callback([=] { selected([=] { return BenchTrainStep(*flags); }); });
}

}  // namespace cohort::tools
