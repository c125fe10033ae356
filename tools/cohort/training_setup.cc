#include "tools/cohort/training_setup.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/arrangement.h"
#include "runtime/tokenizer/tokenizer.h"
#include "tools/cohort/plan/planned_mesh.h"
#include "tools/cohort/world.h"

namespace cohort::tools {

using runtime::ResolvedConfig;
using runtime::TrainLoader;

absl::StatusOr<TrainingData> OpenData(const v1::TrainConfig& config) {
  TrainingData data;
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

std::string DeviceName(const v1::TrainConfig& config) {
  return config.has_device() ? config.device() : "cpu";
}

absl::StatusOr<ResolvedConfig> Resolve(v1::TrainConfig config, runtime::Device& device,
                                       comm::Communicator& world) {
  runtime::ConfigFacts facts{.ranks = world.size(),
                             .ranks_on_host = RanksOnHost(world),
                             .cores = HostCores(),
                             .fast_bf16 = device.fast_bf16(),
                             .tokenizer_size = 0};
  const std::string tokenizer_path = runtime::TokenizerPath(config);
  if (!tokenizer_path.empty()) {
    const auto tokenizer = runtime::Tokenizer::Load(tokenizer_path);
    if (absl::IsNotFound(tokenizer.status()) && config.data().tokenizer().empty()) {
      return absl::NotFoundError(absl::StrCat("data.train: ", tokenizer.status().message(),
                                              "; make the folder with cohort data prepare"));
    }
    COHORT_RETURN_IF_ERROR(tokenizer.status());
    facts.tokenizer_size = (*tokenizer)->vocab_size();
  }
  if (config.parallel().mesh() == "auto") {
    v1::TrainConfig flat = config;
    flat.clear_parallel();
    COHORT_ASSIGN_OR_RETURN(const ResolvedConfig defaults, runtime::ResolveConfig(std::move(flat), facts));
    runtime::SetCpuThreads(defaults.config.train().threads());  // it measures as it would train
    COHORT_ASSIGN_OR_RETURN(config, WithPlannedMesh(std::move(config), defaults, device, world));
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

}  // namespace cohort::tools
