// cohort bench train-step: the speed of a whole training step (forward, backward, clipping, AdamW) as a share
// of the matrix rate that the same run measures; under mpirun also how it scales.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "parallel/mesh_communicators.h"
#include "parallel/parallel_model.h"
#include "parallel/planner/cluster.h"
#include "parallel/planner/mesh_plan.h"
#include "parallel/planner/price.h"
#include "runtime/file.h"
#include "runtime/ops/machine_rates.h"
#include "runtime/optim/optimizer.h"
#include "runtime/random/philox.h"
#include "tools/cohort/bench/bench.h"
#include "tools/cohort/bench/model.h"
#include "tools/cohort/bench/random_tokens.h"
#include "tools/cohort/chosen_device.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

using parallel::planner::MeshPlan;

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
  double step_seconds = 0;
  int pipeline = 1, context = 1, tensor = 1, expert = 1;
  int shard = 0;                    // 0: the ranks of a host
  std::string schedule = "1f1b";    // of a pipeline
  std::vector<std::string> meshes;  // as planner::ParseChoices reads them: in turns
  std::string model;                // a config.json instead of the benchmark's shape
  bool predict = false;
  std::vector<std::string> sharding = {"ddp"};  // several: in turns
  std::string secondary, gather_codec, reduce_codec;
  bool recompute = false;
  bool deterministic = false;  // each also deterministically, in turns
  bool split_batch = false;    // each with a tensor group also in halves, in turns
  bool no_alone = false;
};

// One arrangement of the same ranks.
struct Arrangement {
  std::string name;
  parallel::planner::MeshPlan plan;
  bool deterministic = false;
  bool split_batch = false;
};

// A model over some ranks and its optimizer; one step of both, timed.
class Stepper {
 public:
  static absl::StatusOr<Stepper> Create(const runtime::ModelConfig& config, const TrainStepFlags& flags,
                                        std::shared_ptr<comm::Communicator> world,
                                        const Arrangement& arrangement) {
    const MeshPlan& plan = arrangement.plan;
    Stepper stepper;
    COHORT_ASSIGN_OR_RETURN(const parallel::Mesh mesh, parallel::MakeMesh(plan.shape, *world));
    const int ranks = world->size();
    COHORT_ASSIGN_OR_RETURN(stepper.device_, DeviceOfRank(flags.bench->device, *world));
    COHORT_ASSIGN_OR_RETURN(
        stepper.model_,
        parallel::ParallelModel::Create(
            config, *stepper.device_,
            {.compute = *ParseDataType(flags.bench->dtype),
             .recompute = plan.recompute,
             .global_batch = flags.batch * ranks,
             .micro_batch = plan.micro_batch,
             .sharding = plan.sharding,
             .schedule = plan.schedule,
             .stages_per_rank = plan.chunks,
             .split_batch = arrangement.split_batch ? std::optional(parallel::SplitRule()) : std::nullopt,
             .deterministic = arrangement.deterministic},
            mesh, std::move(world),
            std::make_unique<RandomTokens>(flags.sequence, config.vocab_size, *stepper.device_)));
    stepper.model_->Initialize(1);
    stepper.optimizer_ = runtime::OptimizerState::For(stepper.model_->slices());
    stepper.tokens_ = flags.batch * ranks * flags.sequence;
    return stepper;
  }

  const parallel::StateMemory& memory() const { return model_->parameters().plan(); }

  // Of as many steps as take so long, one at least.
  absl::StatusOr<double> TokensPerSecond(double seconds) {
    // What ran before leaves other caches and other clocks behind: the first step is not counted.
    if (seconds > 0) COHORT_RETURN_IF_ERROR(StepSeconds().status());
    double sum = 0;
    int steps = 0;
    int64_t more = 1;
    while (more != 0) {
      COHORT_ASSIGN_OR_RETURN(const double step, StepSeconds());
      sum += step, ++steps;
      COHORT_ASSIGN_OR_RETURN(more, model_->AgreeMax(sum < seconds ? 1 : 0));
    }
    return static_cast<double>(tokens_) * steps / sum;
  }

 private:
  Stepper() = default;

  absl::StatusOr<double> StepSeconds() {
    COHORT_RETURN_IF_ERROR(model_->Barrier());
    const auto begin = std::chrono::steady_clock::now();
    COHORT_ASSIGN_OR_RETURN(const runtime::StepResult step, model_->ComputeGradients(optimizer_.step));
    COHORT_ASSIGN_OR_RETURN(const double norm, model_->GradientNorm());
    runtime::AdamWStep(model_->slices(), {}, 1e-4, runtime::ClipFactor(norm, 1.0), optimizer_);
    COHORT_RETURN_IF_ERROR(model_->AfterStep(step));
    device_->Synchronize();
    COHORT_RETURN_IF_ERROR(model_->Barrier());
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  runtime::Device* device_ = nullptr;
  std::unique_ptr<parallel::ParallelModel> model_;
  runtime::OptimizerState optimizer_;
  int64_t tokens_ = 0;
};

// One arrangement, and how fast it was.
struct Variant {
  Arrangement arrangement;
  Stepper stepper;
  std::vector<double> speeds;
  double predicted_seconds = 0;
};

// What --mesh says, or else a variant for each --sharding.
absl::StatusOr<std::vector<Arrangement>> ArrangementsOf(const TrainStepFlags& flags, int ranks_on_host) {
  std::vector<Arrangement> arrangements;
  for (const std::string& text : flags.meshes) {
    COHORT_ASSIGN_OR_RETURN(const parallel::planner::Choices choices, parallel::planner::ParseChoices(text));
    arrangements.push_back({text, choices.Complete(flags.micro_batch)});
  }
  if (!arrangements.empty()) return arrangements;
  for (const std::string& name : flags.sharding) {
    MeshPlan plan;
    COHORT_ASSIGN_OR_RETURN(plan.sharding, parallel::ParseSharding(name, flags.secondary, flags.gather_codec,
                                                                   flags.reduce_codec));
    const int inner = flags.pipeline * flags.context * flags.tensor;
    plan.shape = {.pipeline = flags.pipeline,
                  .shard = flags.shard > 0 ? flags.shard : std::max(1, ranks_on_host / inner),
                  .context = flags.context,
                  .tensor = flags.tensor,
                  .expert = flags.expert};
    plan.sharding_name = name;
    plan.schedule = flags.schedule;
    plan.chunks = parallel::planner::ChunksOf(flags.schedule);
    plan.micro_batch = flags.micro_batch;
    plan.recompute = flags.recompute;
    arrangements.push_back({name, plan});
  }
  return arrangements;
}

// What the planner says of each, with the prices of these ranks.
absl::Status Predict(const runtime::ModelConfig& config, const TrainStepFlags& flags,
                     comm::Communicator& world, std::vector<Variant>& variants) {
  const DataType dtype = *ParseDataType(flags.bench->dtype);
  const parallel::planner::ModelCost model(config, flags.sequence);
  const parallel::planner::Work work = {.sequence_length = flags.sequence,
                                        .global_batch = flags.batch * world.size(),
                                        .compute_bytes = dtype == DataType::kBF16 ? 2 : 4};
  COHORT_ASSIGN_OR_RETURN(runtime::Device* const device, DeviceOfRank(flags.bench->device, world));
  COHORT_ASSIGN_OR_RETURN(const parallel::planner::Cluster cluster,
                          RunningCluster(world, *device, dtype, model, work));
  parallel::planner::MeshPricer pricer(model, work, cluster);
  for (Variant& variant : variants) {
    COHORT_RETURN_IF_ERROR(pricer.Check(variant.arrangement.plan));
    COHORT_ASSIGN_OR_RETURN(const parallel::planner::MeshPrice price,
                            pricer.Simulate(variant.arrangement.plan));
    variant.predicted_seconds = price.time.total();
  }
  return absl::OkStatus();
}

absl::StatusOr<runtime::ModelConfig> ModelOf(const TrainStepFlags& flags) {
  if (flags.model.empty()) return BenchModel(*flags.bench, kShape);
  COHORT_ASSIGN_OR_RETURN(const std::string text, runtime::ReadFile(flags.model));
  return runtime::ModelConfig::FromJson(text, flags.model);
}

// Each also in the other ways that are asked for.
std::vector<Arrangement> WithWays(const TrainStepFlags& flags, const std::vector<Arrangement>& plain) {
  std::vector<Arrangement> all;
  for (const Arrangement& arrangement : plain) {
    all.push_back(arrangement);
    const auto add = [&](bool Arrangement::*way, const char* name) {
      all.push_back(arrangement);
      all.back().*way = true;
      absl::StrAppend(&all.back().name, ", ", name);
    };
    if (flags.split_batch && arrangement.plan.shape.tensor > 1) add(&Arrangement::split_batch, "halves");
    if (flags.deterministic) add(&Arrangement::deterministic, "deterministic");
  }
  return all;
}

MeshPlan AloneOf(const TrainStepFlags& flags) {
  MeshPlan plan;
  plan.micro_batch = flags.micro_batch;
  plan.recompute = flags.recompute;
  return plan;
}

absl::Status BenchTrainStep(const TrainStepFlags& flags) {
  COHORT_ASSIGN_OR_RETURN(const runtime::ModelConfig config, ModelOf(flags));
  COHORT_ASSIGN_OR_RETURN(auto world, JoinWorld(absl::Minutes(5)));
  SetBenchThreads(*flags.bench);
  COHORT_ASSIGN_OR_RETURN(const std::vector<Arrangement> arrangements,
                          ArrangementsOf(flags, world->topology().local_size()));
  std::vector<Variant> variants;
  for (const Arrangement& arrangement : WithWays(flags, arrangements)) {
    COHORT_ASSIGN_OR_RETURN(Stepper stepper, Stepper::Create(config, flags, world, arrangement));
    variants.push_back({.arrangement = arrangement, .stepper = std::move(stepper), .speeds = {}});
  }
  if (flags.predict) COHORT_RETURN_IF_ERROR(Predict(config, flags, *world, variants));
  // With more than one rank, rank 0 also trains alone, in turns, while the others wait in the barrier.
  std::unique_ptr<Stepper> alone;
  if (world->size() > 1 && world->rank() == 0 && !flags.no_alone) {
    COHORT_ASSIGN_OR_RETURN(Stepper single, Stepper::Create(config, flags, comm::Communicator::Single(),
                                                            {"alone", AloneOf(flags)}));
    alone = std::make_unique<Stepper>(std::move(single));
  }
  COHORT_ASSIGN_OR_RETURN(runtime::Device* const device, DeviceOfRank(flags.bench->device, *world));
  const DataType dtype = *ParseDataType(flags.bench->dtype);
  std::vector<double> alone_speeds, rates;
  for (int step = -1; step < flags.steps; ++step) {  // the first one warms up
    double rate = 0, alone_speed = 0;
    if (world->rank() == 0) {
      rate = runtime::MeasureMatMulRate(*device, dtype);
      if (alone != nullptr) {
        COHORT_ASSIGN_OR_RETURN(alone_speed, alone->TokensPerSecond(flags.step_seconds));
      }
    }
    for (Variant& variant : variants) {
      COHORT_ASSIGN_OR_RETURN(const double speed,
                              variant.stepper.TokensPerSecond(step < 0 ? 0 : flags.step_seconds));
      if (step < 0) continue;
      variant.speeds.push_back(speed);
      if (world->rank() == 0) {
        std::fprintf(stderr, "step %d, %s: %.0f tokens/s\n", step + 1, variant.arrangement.name.c_str(),
                     speed);
      }
    }
    if (step < 0) continue;
    rates.push_back(rate);
    alone_speeds.push_back(alone_speed);
  }
  if (world->rank() != 0) return absl::OkStatus();
  std::printf("%s, %.0f million parameters, %d rank(s) of %d thread(s) on %s, %d x %d tokens a rank\n",
              config.model_type.c_str(), static_cast<double>(config.NumParameters()) / 1e6, world->size(),
              runtime::CpuThreads(), device->name().c_str(), static_cast<int>(flags.batch),
              static_cast<int>(flags.sequence));
  const double gemm = Median(rates) * world->size(), first = Median(variants.front().speeds);
  std::vector<nlohmann::ordered_json> rows;
  for (const Variant& variant : variants) {
    const MeshPlan& plan = variant.arrangement.plan;
    const double tokens_per_s = Median(variant.speeds);
    const double flops = tokens_per_s * config.TrainFlopsPerToken(flags.sequence);
    nlohmann::ordered_json row = BenchRow("train-step", config, *flags.bench);
    row.update({{"ranks", world->size()},
                {"sequence_length", flags.sequence},
                {"batch", flags.batch},
                {"micro_batch", plan.micro_batch},
                {"mesh", plan.DebugString()},
                {"sharding", plan.sharding_name},
                {"shard", plan.shape.shard},
                {"deterministic", variant.arrangement.deterministic},
                {"split_batch", variant.arrangement.split_batch},
                {"state_peak_bytes", variant.stepper.memory().peak},
                {"tokens_per_s", tokens_per_s},
                {"model_flops_per_s", flops},
                {"gemm_flops_per_s", gemm},
                {"mfu", flops / gemm}});
    std::printf(
        "  %.0f tokens/s, %.1f GFLOP/s of the model; matrix products alone %.1f GFLOP/s; share %.3f\n",
        tokens_per_s, flops / 1e9, gemm / 1e9, flops / gemm);
    if (world->size() > 1) {
      std::printf("  %s: %s\n", plan.DebugString().c_str(), variant.stepper.memory().DebugString().c_str());
    }
    if (flags.predict) {
      const double tokens = static_cast<double>(flags.batch * world->size() * flags.sequence);
      row["predicted_tokens_per_s"] = tokens / variant.predicted_seconds;
      std::printf("  predicted: %.0f tokens/s, %.2f of what was measured\n",
                  tokens / variant.predicted_seconds, tokens / variant.predicted_seconds / tokens_per_s);
    }
    if (variants.size() > 1) {
      row["against_first"] = tokens_per_s / first;
      std::printf("  %.2f times as fast as %s, in turns\n", tokens_per_s / first,
                  variants.front().arrangement.name.c_str());
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
  AddDeviceFlag(*app, flags->bench->device);
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
  app->add_option("--model", flags->model, "The config.json of a model instead of the benchmark's shape");
  app->add_option(
      "--mesh", flags->meshes,
      "As `cohort plan mesh --mesh`, as pipeline=2,sharding=zero-1; several take turns. What is not said "
      "is 1, ddp and --micro-batch");
  app->add_flag("--predict", flags->predict, "Also say how fast the planner thinks each is on these ranks");
  for (const auto& [name, ranks] :
       {std::pair{"pipeline", &flags->pipeline}, {"context", &flags->context}, {"tensor", &flags->tensor}}) {
    app->add_option(absl::StrCat("--", name), *ranks, absl::StrCat("Under mpirun: ranks of the axis ", name))
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
  }
  app->add_option("--schedule", flags->schedule, "Of a pipeline")
      ->check([](const std::string& name) {
        return parallel::planner::ChunksOf(name) > 0
                   ? std::string()
                   : absl::StrCat("use ", absl::StrJoin(parallel::planner::PlannedSchedules(), ", "));
      })
      ->capture_default_str();
  app->add_option("--step-seconds", flags->step_seconds,
                  "Repeat short steps so long and count their mean as one")
      ->check(CLI::NonNegativeNumber);
  app->add_option("--expert", flags->expert, "Under mpirun: ranks among which experts are divided")
      ->capture_default_str();
  app->add_option("--sharding", flags->sharding,
                  "How state is split over ranks, as parallel.sharding; several (a,b) take turns")
      ->delimiter(',')
      ->capture_default_str();
  app->add_option("--shard", flags->shard,
                  "Neighbours of the shard axis; default: the ranks of a host that other axes leave");
  app->add_option("--secondary", flags->secondary, "As parallel.secondary");
  app->add_option("--gather-codec", flags->gather_codec, "As parallel.gather_codec");
  app->add_option("--reduce-codec", flags->reduce_codec, "As parallel.reduce_codec");
  app->add_flag("--deterministic", flags->deterministic,
                "Each sharding also with train.deterministic, in turns");
  app->add_flag("--split-batch", flags->split_batch,
                "Tensor groups also with halves of the batch that take turns (parallel.split_batch)");
  app->add_flag("--recompute", flags->recompute, "Recompute activations in the backward");
  app->add_flag("--no-alone", flags->no_alone, "Under mpirun: do not train on one rank alone in turns");
  app->callback([=] { selected([=] { return BenchTrainStep(*flags); }); });
}

}  // namespace cohort::tools
