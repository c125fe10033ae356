// cohort train: a configuration, the ranks of this job, and the step loop over them.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/policy.h"
#include "parallel/arrangement.h"
#include "parallel/mesh_communicators.h"
#include "parallel/parallel_model.h"
#include "runtime/checkpoint/agree.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/hf_folder.h"
#include "runtime/config/config.h"
#include "runtime/config/help.h"
#include "runtime/config/locate.h"
#include "runtime/config/yaml_message.h"
#include "runtime/data/loader.h"
#include "runtime/file.h"
#include "runtime/ops/machine_rates.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/train/step_loop.h"
#include "tools/cohort/command.h"
#include "tools/cohort/loader_source.h"
#include "tools/cohort/planned_mesh.h"
#include "tools/cohort/run_log.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

using runtime::ResolvedConfig;
using runtime::TrainLoader;

struct TrainFlags {
  std::string config;
  std::vector<std::string> overrides;
  bool help_config = false;
};

struct Data {
  std::shared_ptr<const TrainLoader> training;
  std::shared_ptr<const runtime::EvaluationLoader> held_out;  // null: none
  std::string tokenizer_json;
};

absl::StatusOr<Data> OpenData(const v1::TrainConfig& config) {
  Data data;
  const v1::DataSection& section = config.data();
  const std::vector<std::string> folders(section.train().begin(), section.train().end());
  COHORT_ASSIGN_OR_RETURN(auto tokens, runtime::TokenDataset::Open(folders, "train"));
  data.tokenizer_json = section.tokenizer();
  COHORT_ASSIGN_OR_RETURN(TrainLoader training,
                          TrainLoader::Create(tokens, {.sequence_length = section.sequence_length(),
                                                       .global_batch = config.train().global_batch(),
                                                       .seed = config.seed(),
                                                       .documents = config.data().samples() == "documents"}));
  data.training = std::make_shared<const TrainLoader>(std::move(training));
  if (section.validation_size() == 0) return data;
  const std::vector<std::string> held_out(section.validation().begin(), section.validation().end());
  COHORT_ASSIGN_OR_RETURN(tokens, runtime::TokenDataset::Open(held_out, "validation"));
  COHORT_ASSIGN_OR_RETURN(auto evaluation,
                          runtime::EvaluationLoader::Create(tokens, section.sequence_length()));
  data.held_out = std::make_shared<const runtime::EvaluationLoader>(std::move(evaluation));
  return data;
}

absl::StatusOr<ResolvedConfig> Resolve(v1::TrainConfig config, comm::Communicator& world) {
  runtime::ConfigFacts facts{.ranks = world.size(),
                             .ranks_on_host = RanksOnHost(world),
                             .cores = HostCores(),
                             .fast_bf16 = runtime::CpuDevice().fast_bf16(),
                             .tokenizer_size = 0};
  const std::string tokenizer_path = runtime::TokenizerPath(config);
  if (!tokenizer_path.empty()) {
    COHORT_ASSIGN_OR_RETURN(const auto tokenizer, runtime::Tokenizer::Load(tokenizer_path));
    facts.tokenizer_size = tokenizer->vocab_size();
  }
  if (config.parallel().mesh() == "auto") {
    v1::TrainConfig flat = config;
    flat.clear_parallel();
    COHORT_ASSIGN_OR_RETURN(const ResolvedConfig defaults, runtime::ResolveConfig(std::move(flat), facts));
    runtime::SetCpuThreads(defaults.config.train().threads());  // it measures as it would train
    COHORT_ASSIGN_OR_RETURN(config, WithPlannedMesh(std::move(config), defaults, world));
  }
  COHORT_ASSIGN_OR_RETURN(ResolvedConfig resolved, runtime::ResolveConfig(std::move(config), facts));
  COHORT_RETURN_IF_ERROR(
      parallel::ArrangementOf(resolved.config.parallel(), resolved.model, world.size()).status());
  return resolved;
}

runtime::StepLoopOptions LoopOptions(const v1::TrainConfig& config, bool evaluate) {
  runtime::StepLoopOptions options;
  options.steps = config.train().steps();
  if (config.train().minutes() > 0) options.limit = absl::Minutes(config.train().minutes());
  options.clip_grad_norm = config.train().clip_grad_norm();
  options.adamw = {.beta1 = config.optimizer().beta1(),
                   .beta2 = config.optimizer().beta2(),
                   .eps = config.optimizer().eps(),
                   .weight_decay = config.optimizer().weight_decay()};
  options.schedule = {.peak = config.optimizer().lr(),
                      .total_steps = config.train().steps(),
                      .warmup_steps = config.schedule().warmup_steps(),
                      .min_ratio = config.schedule().min_lr_ratio(),
                      .decay = *runtime::ParseDecay(config.schedule().decay()),
                      .wsd_decay_ratio = config.schedule().wsd_decay_ratio()};
  options.eval_every = config.train().eval_every();
  options.eval_sequences = config.train().eval_sequences();
  options.evaluate = evaluate;
  options.save_every = config.checkpoint().every();
  return options;
}

// One run on one rank: what its parts have in common.
class TrainRun {
 public:
  TrainRun(ResolvedConfig resolved, Data data, std::shared_ptr<comm::Communicator> world)
      : config_(std::move(resolved.config)),
        model_config_(std::move(resolved.model)),
        data_(std::move(data)),
        world_(std::move(world)) {}

  absl::Status Run() {
    COHORT_RETURN_IF_ERROR(MakeModel());
    COHORT_RETURN_IF_ERROR(LoadState());
    COHORT_RETURN_IF_ERROR(Describe());
    runtime::StepCallbacks callbacks;
    callbacks.on_step = [this](const runtime::StepReport& report) {
      state_.tokens += report.tokens;
      state_.seconds += report.seconds;
      log_->Step(report);
    };
    callbacks.on_evaluation = [this](int64_t step, const auto& evaluation) {
      log_->Evaluation(step, evaluation);
    };
    callbacks.save = [this](int64_t step) { return Save(step); };
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
                  static_cast<double>(state_.tokens) / 1e6, config_.output().c_str());
    }
    return absl::OkStatus();
  }

 private:
  absl::Status MakeModel() {
    runtime::Device& device = runtime::CpuDevice();
    COHORT_ASSIGN_OR_RETURN(const parallel::Arrangement arrangement,
                            parallel::ArrangementOf(config_.parallel(), model_config_, world_->size()));
    COHORT_ASSIGN_OR_RETURN(const parallel::Mesh mesh, parallel::MakeMesh(arrangement.shape, *world_));
    const auto compute = ParseDataType(config_.train().dtype());
    COHORT_CHECK(compute.has_value(), "a validated config has dtype %s", config_.train().dtype().c_str());
    COHORT_ASSIGN_OR_RETURN(
        model_, parallel::ParallelModel::Create(model_config_, device,
                                                {.compute = *compute,
                                                 .recompute = config_.train().recompute(),
                                                 .global_batch = config_.train().global_batch(),
                                                 .micro_batch = config_.train().micro_batch(),
                                                 .sharding = arrangement.sharding,
                                                 .context = arrangement.context,
                                                 .hybrid = arrangement.hybrid,
                                                 .schedule = arrangement.schedule,
                                                 .stages_per_rank = arrangement.stages_per_rank,
                                                 .split_batch = arrangement.split_batch,
                                                 .deterministic = config_.train().deterministic(),
                                                 .virtual_shards = config_.train().virtual_shards()},
                                                mesh, world_,
                                                MakeLoaderSource(data_.training, data_.held_out, device)));
    optimizer_ = runtime::OptimizerState::For(model_->slices());
    return absl::OkStatus();
  }

  // From the newest checkpoint of this run, or the weights of model.path, or at random.
  absl::Status LoadState() {
    const std::string root = config_.output() + "/checkpoints";
    state_ = {.seed = config_.seed(),
              .global_batch = config_.train().global_batch(),
              .sequence_length = config_.data().sequence_length(),
              .data_fingerprint = data_.training->dataset().fingerprint()};
    const std::optional<std::string> latest =
        config_.checkpoint().resume() ? runtime::LatestCheckpoint(root) : std::nullopt;
    // All ranks must decide alike: a rank that sees another disk is told so here and not by a hang later.
    COHORT_ASSIGN_OR_RETURN(const std::vector<std::string> seen, model_->GatherStrings(latest.value_or("")));
    for (const std::string& other : seen) {
      if (other != seen[0]) {
        return absl::FailedPreconditionError(
            absl::StrCat("the ranks see different checkpoints to resume from (", seen[0], " and ", other,
                         "): output must be a folder that all of them share"));
      }
    }
    if (latest) {
      COHORT_ASSIGN_OR_RETURN(const runtime::TrainerState saved,
                              LoadCheckpoint(*model_, model_config_, optimizer_, *latest));
      COHORT_RETURN_IF_ERROR(CheckResume(saved, *latest));
      state_ = saved;
    } else if (!config_.model().path().empty() && HasWeights(config_.model().path())) {
      COHORT_RETURN_IF_ERROR(AgreeStatus(*model_, model_->LoadWeights(config_.model().path())));
    } else {
      model_->Initialize(config_.seed());
    }
    return absl::OkStatus();
  }

  static bool HasWeights(const std::string& folder) {
    return std::filesystem::exists(folder + "/model.safetensors") ||
           std::filesystem::exists(folder + "/model.safetensors.index.json");
  }

  // The data's order is a function of these, so a run goes on exactly only where they are the same.
  absl::Status CheckResume(const runtime::TrainerState& saved, const std::string& folder) const {
    const auto differs = [&](const char* key, auto then, auto now) {
      return absl::FailedPreconditionError(
          absl::StrCat(folder, " was trained with ", key, " ", then, " and the config says ", now,
                       ": set it back, give another output, or start anew with checkpoint.resume=false"));
    };
    if (saved.seed != state_.seed) return differs("seed", saved.seed, state_.seed);
    if (saved.global_batch != state_.global_batch) {
      return differs("train.global_batch", saved.global_batch, state_.global_batch);
    }
    if (saved.sequence_length != state_.sequence_length) {
      return differs("data.sequence_length", saved.sequence_length, state_.sequence_length);
    }
    if (saved.data_fingerprint != state_.data_fingerprint) {
      return differs("data of fingerprint", saved.data_fingerprint, state_.data_fingerprint);
    }
    return absl::OkStatus();
  }

  absl::Status Describe() {
    const auto compute = model_->decoder().compute();
    // The best of some: neighbours on the machine make it look slower than it is, never faster.
    double peak = 0;
    for (int i = 0; i < 3; ++i) peak = std::max(peak, runtime::MeasureMatMulRate(compute) * world_->size());
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
        "%s: %.1f million parameters%s; %s on %d rank%s (%s), %d threads each; %d sequences of %d tokens a "
        "step, %.1f steps an epoch",
        model_config_.model_type, static_cast<double>(model_config_.NumParameters()) / 1e6, experts,
        Name(compute), world_->size(), world_->size() == 1 ? "" : "s", model_->mesh().shape().DebugString(),
        runtime::CpuThreads(), config_.train().global_batch(), config_.data().sequence_length(),
        static_cast<double>(data_.training->samples_per_epoch()) / config_.train().global_batch()));
    if (optimizer_.step > 0) {
      log_->Note(
          absl::StrFormat("going on after step %d (checkpoint.resume=false begins anew)", optimizer_.step));
    }
    return absl::OkStatus();
  }

  absl::Status Save(int64_t step) {
    state_.step = step;
    COHORT_ASSIGN_OR_RETURN(const std::string path,
                            SaveCheckpoint(*model_, optimizer_, state_,
                                           {.root = config_.output() + "/checkpoints",
                                            .config = model_config_,
                                            .tokenizer = data_.tokenizer_json,
                                            .keep = config_.checkpoint().keep(),
                                            .shard_bytes = config_.checkpoint().shard_megabytes() << 20}));
    log_->Note(absl::StrFormat("step %d  saved %s", step, path));
    return absl::OkStatus();
  }

  const v1::TrainConfig config_;
  const runtime::ModelConfig model_config_;
  const Data data_;
  const std::shared_ptr<comm::Communicator> world_;
  std::unique_ptr<parallel::ParallelModel> model_;
  runtime::OptimizerState optimizer_;
  runtime::TrainerState state_;
  std::unique_ptr<RunLog> log_;
};

absl::Status Train(const TrainFlags& flags) {
  if (flags.help_config) {
    std::fputs(runtime::ConfigHelp(*v1::TrainConfig::descriptor()).c_str(), stdout);
    return absl::OkStatus();
  }
  if (flags.config.empty()) {
    return absl::InvalidArgumentError("--config is required (--help-config explains every key)");
  }
  COHORT_ASSIGN_OR_RETURN(v1::TrainConfig config, runtime::LoadConfig(flags.config, flags.overrides));
  StopRequested();
  const absl::Duration timeout = config.parallel().has_timeout_seconds()
                                     ? absl::Seconds(config.parallel().timeout_seconds())
                                     : comm::policy::kTimeout;
  COHORT_ASSIGN_OR_RETURN(auto world, JoinWorld(timeout));
  absl::StatusOr<ResolvedConfig> resolution = Resolve(std::move(config), *world);
  if (!resolution.ok()) return runtime::WithPlace(resolution.status(), flags.config, flags.overrides);
  ResolvedConfig resolved = *std::move(resolution);
  runtime::SetCpuThreads(resolved.config.train().threads());
  COHORT_ASSIGN_OR_RETURN(Data data, OpenData(resolved.config));
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
  train->add_flag("--help-config", flags->help_config, "Explain every key of the file");
  train->callback([=] { selected([=] { return Train(*flags); }); });
}

}  // namespace cohort::tools
