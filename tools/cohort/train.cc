// cohort train: a configuration, the ranks of this job, and the step loop over them.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/policy.h"
#include "parallel/configured_model.h"
#include "parallel/parallel_model.h"
#include "runtime/config/config.h"
#include "runtime/config/help.h"
#include "runtime/config/locate.h"
#include "runtime/config/yaml_message.h"
#include "runtime/file.h"
#include "runtime/ops/machine_rates.h"
#include "runtime/train/step_loop.h"
#include "tools/cohort/chosen_device.h"
#include "tools/cohort/command.h"
#include "tools/cohort/elastic/train.h"
#include "tools/cohort/loader_source.h"
#include "tools/cohort/run_log.h"
#include "tools/cohort/training_setup.h"
#include "tools/cohort/training_state.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

using runtime::ResolvedConfig;

struct TrainFlags {
  std::string config;
  std::vector<std::string> overrides;
  std::string device;
  bool help_config = false;
  ElasticFlags elastic;
};

// One run on one rank: what its parts have in common.
class TrainRun {
 public:
  TrainRun(ResolvedConfig resolved, TrainingData data, std::shared_ptr<comm::Communicator> world)
      : config_(std::move(resolved.config)),
        model_config_(std::move(resolved.model)),
        data_(std::move(data)),
        world_(std::move(world)),
        state_(config_, model_config_, data_) {}

  absl::Status Run() {
    COHORT_RETURN_IF_ERROR(MakeModel());
    COHORT_RETURN_IF_ERROR(Describe());
    runtime::StepCallbacks callbacks;
    callbacks.on_step = [this](const runtime::StepReport& report) {
      state_.Count(report.tokens, report.seconds);
      log_->Step(report);
    };
    callbacks.on_evaluation = [this](int64_t step, const auto& evaluation) {
      log_->Evaluation(step, evaluation);
    };
    callbacks.save = [this](int64_t step, bool) { return Save(step); };
    callbacks.on_save_failed = [this](int64_t step, const absl::Status& status) {
      log_->Note(absl::StrFormat("step %d  could not be saved, training goes on: %s", step,
                                 std::string(status.message())));
    };
    absl::StatusOr<runtime::StepLoopResult> result = RunSteps(
        *model_, optimizer_, LoopOptions(config_, data_.held_out != nullptr), callbacks, StopRequested());
    log_->End();
    if (!result.ok()) return result.status();
    if (world_->rank() == 0) {
      std::printf("%s after %d steps and %.1f million tokens; the model is in %s/checkpoints/latest\n",
                  result->interrupted ? "stopped" : "done", static_cast<int>(result->step),
                  static_cast<double>(state_.tokens()) / 1e6, config_.output().c_str());
    }
    return absl::OkStatus();
  }

 private:
  absl::Status MakeModel() {
    COHORT_ASSIGN_OR_RETURN(device_, DeviceOfRank(DeviceName(config_), *world_));
    COHORT_ASSIGN_OR_RETURN(
        model_, parallel::MakeConfiguredModel(config_, model_config_, *device_, world_,
                                              MakeLoaderSource(data_.training, data_.held_out, *device_)));
    optimizer_ = runtime::OptimizerState::For(model_->slices());
    return state_.Load(*model_, optimizer_, config_.checkpoint().resume());
  }

  absl::Status Describe() {
    const auto compute = model_->decoder().compute();
    // The best of some: neighbours on the machine make it look slower than it is, never faster.
    double peak = 0;
    for (int i = 0; i < 3; ++i) {
      peak = std::max(peak, runtime::MeasureMatMulRate(*device_, compute) * world_->size());
    }
    RunLog::Facts facts{
        .rank = world_->rank(),
        .resumed_step = optimizer_.step,
        .peak_flops = peak,
        .flops_per_token = model_config_.TrainFlopsPerToken(config_.data().sequence_length())};
    COHORT_ASSIGN_OR_RETURN(log_, RunLog::Open(config_, facts));
    if (world_->rank() != 0) return absl::OkStatus();
    COHORT_RETURN_IF_ERROR(
        runtime::WriteFileDurably(config_.output() + "/config.yaml", runtime::ToYaml(config_)));
    std::string experts;
    if (model_config_.num_experts > 0) {
      experts = absl::StrFormat(", %d experts of which a token uses %d", model_config_.num_experts,
                                model_config_.num_experts_per_tok);
    }
    log_->Note(absl::StrFormat(
        "%s: %.1f million parameters%s; %s on %d rank%s (%s), %s, %d threads each; %d sequences of %d "
        "tokens a step, %.1f steps an epoch",
        model_config_.model_type, static_cast<double>(model_config_.NumParameters()) / 1e6, experts,
        Name(compute), world_->size(), world_->size() == 1 ? "" : "s", model_->mesh().shape().DebugString(),
        device_->name(), runtime::CpuThreads(), config_.train().global_batch(),
        config_.data().sequence_length(),
        static_cast<double>(data_.training->samples_per_epoch()) / config_.train().global_batch()));
    if (optimizer_.step > 0) {
      log_->Note(
          absl::StrFormat("going on after step %d (checkpoint.resume=false begins anew)", optimizer_.step));
    }
    return absl::OkStatus();
  }

  absl::Status Save(int64_t step) {
    COHORT_ASSIGN_OR_RETURN(const std::string path, state_.Save(*model_, optimizer_, step));
    log_->Note(absl::StrFormat("step %d  saved %s", step, path));
    return absl::OkStatus();
  }

  const v1::TrainConfig config_;
  const runtime::ModelConfig model_config_;
  const TrainingData data_;
  const std::shared_ptr<comm::Communicator> world_;
  runtime::Device* device_ = nullptr;
  std::unique_ptr<parallel::ParallelModel> model_;
  runtime::OptimizerState optimizer_;
  TrainingState state_;
  std::unique_ptr<RunLog> log_;
};

absl::Status Train(TrainFlags flags) {
  if (flags.help_config) {
    std::fputs(runtime::ConfigHelp(*v1::TrainConfig::descriptor()).c_str(), stdout);
    return absl::OkStatus();
  }
  if (!flags.device.empty()) flags.overrides.push_back("device=" + flags.device);
  const ElasticFlags& elastic = flags.elastic;
  if (!elastic.join.empty() && (!flags.config.empty() || !flags.overrides.empty() || elastic.elastic)) {
    return absl::InvalidArgumentError(
        "--join takes the configuration of the job that it joins: leave --config, --set and --elastic out");
  }
  if (!elastic.coordinator.empty() && !elastic.elastic) {
    return absl::InvalidArgumentError("--coordinator goes with --elastic (--join says which one itself)");
  }
  if (!elastic.join.empty()) {
    StopRequested();
    return TrainElastic({}, elastic);
  }
  if (flags.config.empty()) {
    return absl::InvalidArgumentError("--config is required (--help-config explains every key)");
  }
  COHORT_ASSIGN_OR_RETURN(v1::TrainConfig config, runtime::LoadConfig(flags.config, flags.overrides));
  StopRequested();
  if (elastic.elastic) {
    return runtime::WithPlace(TrainElastic(std::move(config), elastic), flags.config, flags.overrides);
  }
  const absl::Duration timeout = config.parallel().has_timeout_seconds()
                                     ? absl::Seconds(config.parallel().timeout_seconds())
                                     : comm::policy::kTimeout;
  COHORT_ASSIGN_OR_RETURN(auto world, JoinWorld(timeout));
  const auto device = DeviceOfRank(DeviceName(config), *world);
  absl::StatusOr<ResolvedConfig> resolution =
      device.ok() ? Resolve(std::move(config), **device, *world) : device.status();
  if (!resolution.ok()) return runtime::WithPlace(resolution.status(), flags.config, flags.overrides);
  ResolvedConfig resolved = *std::move(resolution);
  runtime::SetCpuThreads(resolved.config.train().threads());
  COHORT_ASSIGN_OR_RETURN(TrainingData data, OpenData(resolved.config));
  const absl::Status status = TrainRun(std::move(resolved), std::move(data), std::move(world)).Run();
  return runtime::WithPlace(status, flags.config, flags.overrides);
}

}  // namespace

void AddTrain(CLI::App& app, const Selected& selected) {
  CLI::App* train = app.add_subcommand("train", "Train a model; under mpirun on all of its ranks together");
  const auto flags = std::make_shared<TrainFlags>();
  train->add_option("--config", flags->config, "The run's YAML file (see examples/)");
  train
      ->add_option("--set", flags->overrides,
                   "Override keys of the file: --set train.steps=100 data.train=[a,b]")
      ->expected(1, -1);
  train
      ->add_option(
          "--device", flags->device,
          "Where the model computes: cpu or cuda; the same as --set device=cuda. Default: what the file says")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  train->add_flag("--elastic", flags->elastic.elastic,
                  "Go on while ranks join, fail and leave; start it with mpirun --enable-recovery");
  train->add_option("--join", flags->elastic.join,
                    "HOST:PORT of the coordinator of an elastic training that runs, or its output folder: "
                    "add this process to it");
  train->add_option("--coordinator", flags->elastic.coordinator,
                    "HOST:PORT of a coordinator that runs (cohort coordinator). Default: the job starts one");
  train->add_flag("--help-config", flags->help_config, "Explain every key of the file");
  train->callback([=] { selected([=] { return Train(*flags); }); });
}

}  // namespace cohort::tools
