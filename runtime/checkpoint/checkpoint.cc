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

namespace cohort::runtime {
namespace {

namespace fs = std::filesystem;

// What rank 0 adds when every rank's files are there; then the folder becomes the checkpoint.
absl::Status FinishAndPublish(const StepFolder& target, const SavedTrainerState& state,
                              const CheckpointOptions& options, const StatePlan& plan) {
  const std::string folder = target.partial();
  ModelConfig config = options.config;
  config.torch_dtype = TorchName(plan.dtype);
  if (!plan.index.empty()) {
    COHORT_RETURN_IF_ERROR(WriteFileDurably(absl::StrCat(folder, "/", kWeightsIndexFile), plan.index));
  }
  COHORT_RETURN_IF_ERROR(WriteFileDurably(absl::StrCat(folder, "/config.json"), config.ToJson()));
  COHORT_RETURN_IF_ERROR(CopyTokenizer(options.tokenizer, folder));
  COHORT_RETURN_IF_ERROR(WriteFileDurably(absl::StrCat(folder, "/", kTrainerStateFile), ToJson(state)));
  return PublishStepFolder(target);
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
    CopyValues(values, TensorsOf(entry, trainable, optimizer).value);
  }
  COHORT_RETURN_IF_ERROR(ReadOptimizerFiles(weights, state.world, trainable, optimizer));
  optimizer.step = state.optimizer_step;
  return state.trainer;
}

// Those of a Trainable, which do nothing else meanwhile.
class WaitingRanks final : public SavingRanks {
 public:
  explicit WaitingRanks(Trainable& trainable) : trainable_(trainable) {}
  int rank() const override { return trainable_.rank(); }
  int world() const override { return trainable_.world(); }
  absl::StatusOr<std::vector<std::string>> GatherStrings(const std::string& mine) override {
    return trainable_.GatherStrings(mine);
  }
  absl::Status Together(const std::function<absl::Status()>& work) override {
    return AgreeStatus(trainable_, work());
  }

 private:
  Trainable& trainable_;
};

// Collective, all but BeginStepFolder and the clearing up after an error. `published`: of rank 0, that it did.
absl::Status WriteAndPublish(SavingRanks& ranks, absl::Span<const WrittenState> written,
                             const SavedTrainerState& state, const CheckpointOptions& options,
                             const StepFolder& folder, bool* published) {
  const std::string partial = folder.partial();
  COHORT_ASSIGN_OR_RETURN(const std::vector<std::string> announced,
                          ranks.GatherStrings(AnnounceState(written)));
  COHORT_ASSIGN_OR_RETURN(const StatePlan plan, PlanState(announced, options.shard_bytes));
  COHORT_RETURN_IF_ERROR(ranks.Together([&] { return CreateStateFiles(partial, plan, ranks.rank()); }));
  COHORT_RETURN_IF_ERROR(
      ranks.Together([&] { return WriteStatePieces(partial, plan, ranks.rank(), ranks.world(), written); }));
  return ranks.Together([&] {
    if (ranks.rank() != 0) return absl::OkStatus();
    COHORT_RETURN_IF_ERROR(FinishAndPublish(folder, state, options, plan));
    *published = true;
    RemoveOldOnes(options, state.trainer.step);
    return absl::OkStatus();
  });
}

absl::StatusOr<std::string> Save(SavingRanks& ranks, absl::Span<const WrittenState> written,
                                 const SavedTrainerState& state, const CheckpointOptions& options,
                                 const std::string& attempt, bool* published) {
  const bool is_root = ranks.rank() == 0;
  const StepFolder folder{options.root, state.trainer.step, attempt};
  COHORT_RETURN_IF_ERROR(
      ranks.Together([&] { return is_root ? BeginStepFolder(folder) : absl::OkStatus(); }));
  const absl::Status status = WriteAndPublish(ranks, written, state, options, folder, published);
  if (!status.ok()) {
    if (is_root) AbandonStepFolder(folder);
    return absl::Status(status.code(), absl::StrCat("the checkpoint of step ", folder.step,
                                                    " was not saved: ", status.message()));
  }
  return folder.path();
}

}  // namespace

absl::StatusOr<std::string> SaveCheckpoint(Trainable& trainable, const OptimizerState& optimizer,
                                           const TrainerState& state, const CheckpointOptions& options) {
  WaitingRanks ranks(trainable);
  bool published = false;
  return Save(ranks, WrittenBy(trainable, optimizer), {state, optimizer.step, ranks.world()}, options, "",
              &published);
}

absl::StatusOr<std::string> SaveWritten(SavingRanks& ranks, absl::Span<const WrittenState> written,
                                        const TrainerState& state, const CheckpointOptions& options,
                                        const std::string& attempt) {
  bool published = false;
  absl::StatusOr<std::string> saved =
      Save(ranks, written, {state, state.step, ranks.world()}, options, attempt, &published);
  // Whoever was lost after that, it is there.
  if (published) return StepFolder{options.root, state.step}.path();
  return saved;
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
