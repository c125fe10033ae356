#include "runtime/checkpoint/checkpoint.h"

#include <spdlog/spdlog.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/checkpoint/agree.h"
#include "runtime/checkpoint/checkpoint_folders.h"
#include "runtime/checkpoint/hf_export.h"
#include "runtime/checkpoint/hf_folder.h"
#include "runtime/checkpoint/optimizer_files.h"
#include "runtime/checkpoint/state_plan.h"
#include "runtime/checkpoint/trainer_state.h"
#include "runtime/checkpoint/weight_shards.h"
#include "runtime/ops/ops.h"

namespace cohort::runtime {
namespace {

namespace fs = std::filesystem;

// What rank 0 adds when every rank's files are there; then the folder becomes the checkpoint.
absl::Status FinishAndPublish(const std::string& folder, const SavedTrainerState& state,
                              const CheckpointOptions& options, const StatePlan& plan) {
  ModelConfig config = options.config;
  config.torch_dtype = TorchName(plan.dtype);
  if (!plan.index.empty()) {
    COHORT_RETURN_IF_ERROR(WriteFileDurably(absl::StrCat(folder, "/", kWeightsIndexFile), plan.index));
  }
  COHORT_RETURN_IF_ERROR(WriteFileDurably(absl::StrCat(folder, "/config.json"), config.ToJson()));
  COHORT_RETURN_IF_ERROR(CopyTokenizer(options.tokenizer, folder));
  COHORT_RETURN_IF_ERROR(WriteFileDurably(absl::StrCat(folder, "/", kTrainerStateFile), ToJson(state)));
  return PublishStepFolder(options.root, state.trainer.step);
}

void RemoveOldOnes(const CheckpointOptions& options, int64_t saved) {
  for (int64_t step : StepsToRemove(ListSteps(options.root), saved, options.keep)) {
    const absl::Status status = RemoveStepFolder(options.root, step);
    if (!status.ok()) spdlog::warn("an old checkpoint stays: {}", std::string(status.message()));
  }
}

// A symlink as rank 0 sees it, so that one that is replaced meanwhile cannot lead the ranks apart.
absl::StatusOr<std::string> ResolveTogether(Trainable& trainable, const std::string& folder) {
  std::error_code error;
  const fs::path target = fs::read_symlink(folder, error);
  COHORT_ASSIGN_OR_RETURN(const std::vector<std::string> targets,
                          trainable.GatherStrings(error ? "" : target.string()));
  if (targets[0].empty()) return folder;
  return (fs::path(folder).parent_path() / targets[0]).string();  // an absolute target stays what it is
}

// Collective: the names of the tensors that any rank has some of.
absl::StatusOr<absl::flat_hash_set<std::string>> AllNames(Trainable& trainable) {
  nlohmann::json mine = nlohmann::json::array();
  for (const StateEntry& entry : trainable.state()) mine.push_back(entry.piece.name);
  COHORT_ASSIGN_OR_RETURN(
      const std::vector<std::string> all,
      trainable.GatherStrings(mine.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
  absl::flat_hash_set<std::string> names;
  for (const std::string& text : all) {
    const nlohmann::json list = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    COHORT_CHECK(list.is_array(), "a rank has no list of tensors");
    for (const nlohmann::json& name : list) names.insert(name.get<std::string>());
  }
  return names;
}

absl::StatusOr<TrainerState> LoadOwnPart(Trainable& trainable, const ModelConfig& config,
                                         OptimizerState& optimizer, const std::string& folder,
                                         const absl::flat_hash_set<std::string>& names) {
  COHORT_ASSIGN_OR_RETURN(const SavedTrainerState state,
                          ReadTrainerState(absl::StrCat(folder, "/", kTrainerStateFile)));
  COHORT_ASSIGN_OR_RETURN(const HfFolder weights, HfFolder::Open(folder));
  std::vector<NamedParameter> parameters;
  for (const StateEntry& entry : trainable.state()) parameters.push_back({entry.piece.name, entry.parameter});
  COHORT_RETURN_IF_ERROR(CheckParameters(weights, config, parameters,
                                         [&](const std::string& name) { return names.contains(name); }));
  for (const StateEntry& entry : trainable.state()) {
    if (entry.piece.empty()) continue;
    COHORT_ASSIGN_OR_RETURN(const Tensor values, weights.ReadPiece(entry.piece));
    const Tensor target = TensorsOf(entry, trainable, optimizer).value;
    target.device().ops().Copy(values, target);
    target.device().Synchronize();  // before the mapping goes
  }
  COHORT_RETURN_IF_ERROR(ReadOptimizerFiles(weights, state.world, trainable, optimizer));
  optimizer.step = state.optimizer_step;
  return state.trainer;
}

// Collective, all but BeginStepFolder and the clearing up after an error.
absl::Status WriteAndPublish(Trainable& trainable, const OptimizerState& optimizer, const TrainerState& state,
                             const CheckpointOptions& options, const std::string& partial) {
  COHORT_ASSIGN_OR_RETURN(const std::vector<std::string> announced,
                          trainable.GatherStrings(AnnounceState(trainable)));
  COHORT_ASSIGN_OR_RETURN(const StatePlan plan, PlanState(announced, options.shard_bytes));
  COHORT_RETURN_IF_ERROR(AgreeStatus(trainable, CreateStateFiles(partial, plan, trainable.rank())));
  COHORT_RETURN_IF_ERROR(AgreeStatus(trainable, WriteStatePieces(partial, plan, trainable, optimizer)));
  absl::Status status;
  if (trainable.rank() == 0) {
    status = FinishAndPublish(partial, {state, optimizer.step, trainable.world()}, options, plan);
    if (status.ok()) RemoveOldOnes(options, state.step);
  }
  return AgreeStatus(trainable, status);
}

}  // namespace

absl::StatusOr<std::string> SaveCheckpoint(Trainable& trainable, const OptimizerState& optimizer,
                                           const TrainerState& state, const CheckpointOptions& options) {
  const bool is_root = trainable.rank() == 0;
  const std::string final = absl::StrCat(options.root, "/", StepFolderName(state.step));
  const std::string partial = final + kPartialSuffix;

  const absl::Status begun = is_root ? BeginStepFolder(options.root, state.step) : absl::OkStatus();
  COHORT_RETURN_IF_ERROR(AgreeStatus(trainable, begun));
  const absl::Status status = WriteAndPublish(trainable, optimizer, state, options, partial);
  if (!status.ok()) {
    if (is_root) AbandonStepFolder(options.root, state.step);
    return absl::Status(status.code(), absl::StrCat("the checkpoint of step ", state.step,
                                                    " was not saved: ", status.message()));
  }
  return final;
}

absl::StatusOr<TrainerState> LoadCheckpoint(Trainable& trainable, const ModelConfig& config,
                                            OptimizerState& optimizer, const std::string& folder) {
  COHORT_ASSIGN_OR_RETURN(const std::string resolved, ResolveTogether(trainable, folder));
  COHORT_ASSIGN_OR_RETURN(const absl::flat_hash_set<std::string> names, AllNames(trainable));
  absl::StatusOr<TrainerState> state = LoadOwnPart(trainable, config, optimizer, resolved, names);
  COHORT_RETURN_IF_ERROR(AgreeStatus(trainable, state.status()));
  COHORT_RETURN_IF_ERROR(trainable.StateRestored());
  return state;
}

std::optional<std::string> LatestCheckpoint(const std::string& root) {
  const std::string latest = absl::StrCat(root, "/", kLatest);
  std::error_code error;
  if (fs::exists(latest, error)) return latest;
  // Killed between the first checkpoint's rename and its link.
  const std::vector<int64_t> steps = ListSteps(root);
  if (steps.empty()) return std::nullopt;
  return absl::StrCat(root, "/", StepFolderName(steps.back()));
}

}  // namespace cohort::runtime
