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
#include "runtime/checkpoint/hf_folder.h"
#include "runtime/checkpoint/optimizer_files.h"
#include "runtime/checkpoint/trainer_state.h"
#include "runtime/checkpoint/weight_shards.h"

namespace cohort::runtime {
namespace {

namespace fs = std::filesystem;

constexpr char kStateFile[] = "trainer_state.json";
// What is copied beside the weights where it lies beside the tokenizer.
constexpr const char* kTokenizerSiblings[] = {"tokenizer_config.json", "special_tokens_map.json",
                                              "generation_config.json"};

const char* TorchName(DataType dtype) {
  switch (dtype) {
    case DataType::kF32:
      return "float32";
    case DataType::kBF16:
      return "bfloat16";
    case DataType::kF16:
      return "float16";
    case DataType::kF64:
      return "float64";
    case DataType::kI8:
      return "int8";
    case DataType::kU8:
      return "uint8";
    case DataType::kI32:
      return "int32";
    case DataType::kI64:
      return "int64";
  }
  COHORT_CHECK(false, "data type %d has no name in config.json", static_cast<int>(dtype));
}

std::vector<const StateEntry*> Written(Trainable& trainable) {
  std::vector<const StateEntry*> entries;
  for (const StateEntry& entry : trainable.state()) {
    if (entry.writes) entries.push_back(&entry);
  }
  return entries;
}

// Collective: what every rank writes, rank by rank in the order of its state. The same list on every rank.
absl::StatusOr<std::vector<PlannedTensor>> GatherTensors(Trainable& trainable) {
  nlohmann::json mine = nlohmann::json::array();
  for (const StateEntry* entry : Written(trainable)) {
    const Tensor& value = entry->parameter->value;
    mine.push_back(
        {entry->name, Name(value.dtype()), std::vector<int64_t>(value.shape().begin(), value.shape().end())});
  }
  COHORT_ASSIGN_OR_RETURN(
      const std::vector<std::string> all,
      trainable.GatherStrings(mine.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
  std::vector<PlannedTensor> tensors;
  absl::flat_hash_set<std::string> names;
  for (size_t rank = 0; rank < all.size(); ++rank) {
    const nlohmann::json list = nlohmann::json::parse(all[rank], nullptr, /*allow_exceptions=*/false);
    COHORT_CHECK(list.is_array(), "rank %zu announced no list of tensors", rank);
    for (const nlohmann::json& item : list) {
      PlannedTensor tensor;
      tensor.info.name = item[0].get<std::string>();
      tensor.info.dtype = *ParseDataType(item[1].get<std::string>());
      for (const nlohmann::json& dim : item[2]) tensor.info.shape.push_back(dim.get<int64_t>());
      tensor.writer = static_cast<int>(rank);
      COHORT_CHECK(names.insert(tensor.info.name).second, "tensor %s has two writers",
                   tensor.info.name.c_str());
      tensors.push_back(std::move(tensor));
    }
  }
  return tensors;
}

// This rank's files.
absl::Status WriteOwnFiles(const std::string& folder, Trainable& trainable, const OptimizerState& optimizer,
                           absl::Span<const PlannedTensor> tensors, absl::Span<const WeightShard> shards) {
  absl::flat_hash_map<std::string, Tensor> values;
  for (const StateEntry* entry : Written(trainable)) values[entry->name] = entry->parameter->value;
  for (const WeightShard& shard : shards) {
    if (shard.writer != trainable.rank()) continue;
    std::vector<Tensor> in_shard;
    for (size_t i : shard.tensors) in_shard.push_back(values.at(tensors[i].info.name));
    COHORT_RETURN_IF_ERROR(WriteWeightShard(folder, tensors, shard, in_shard));
  }
  COHORT_RETURN_IF_ERROR(WriteOptimizerFile(folder, trainable, optimizer));
  return SyncFolder(folder);
}

absl::Status CopyTokenizer(const std::string& tokenizer, const std::string& folder) {
  if (tokenizer.empty()) return absl::OkStatus();
  COHORT_ASSIGN_OR_RETURN(const std::string text, ReadFile(tokenizer));
  COHORT_RETURN_IF_ERROR(WriteFileDurably(absl::StrCat(folder, "/tokenizer.json"), text));
  for (const char* name : kTokenizerSiblings) {
    const auto sibling = ReadFile((fs::path(tokenizer).parent_path() / name).string());
    if (absl::IsNotFound(sibling.status())) continue;
    COHORT_RETURN_IF_ERROR(sibling.status());
    COHORT_RETURN_IF_ERROR(WriteFileDurably(absl::StrCat(folder, "/", name), *sibling));
  }
  return absl::OkStatus();
}

// What rank 0 adds when every rank's files are there; then the folder becomes the checkpoint.
absl::Status FinishAndPublish(const std::string& folder, const SavedTrainerState& state,
                              const CheckpointOptions& options, DataType dtype,
                              absl::Span<const PlannedTensor> tensors, absl::Span<const WeightShard> shards) {
  ModelConfig config = options.config;
  config.torch_dtype = TorchName(dtype);
  if (shards.size() > 1) {
    COHORT_RETURN_IF_ERROR(
        WriteFileDurably(absl::StrCat(folder, "/", kWeightsIndexFile), WeightsIndexJson(tensors, shards)));
  }
  COHORT_RETURN_IF_ERROR(WriteFileDurably(absl::StrCat(folder, "/config.json"), config.ToJson()));
  COHORT_RETURN_IF_ERROR(CopyTokenizer(options.tokenizer, folder));
  COHORT_RETURN_IF_ERROR(WriteFileDurably(absl::StrCat(folder, "/", kStateFile), ToJson(state)));
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

absl::StatusOr<TrainerState> LoadOwnPart(Trainable& trainable, const ModelConfig& config,
                                         OptimizerState& optimizer, const std::string& folder) {
  COHORT_ASSIGN_OR_RETURN(const SavedTrainerState state,
                          ReadTrainerState(absl::StrCat(folder, "/", kStateFile)));
  COHORT_ASSIGN_OR_RETURN(const HfFolder weights, HfFolder::Open(folder));
  std::vector<NamedParameter> parameters;
  for (const StateEntry& entry : trainable.state()) parameters.push_back({entry.name, entry.parameter});
  COHORT_RETURN_IF_ERROR(LoadParameters(weights, config, parameters));
  COHORT_RETURN_IF_ERROR(ReadOptimizerFiles(folder, state.world, trainable, optimizer));
  optimizer.step = state.optimizer_step;
  return state.trainer;
}

}  // namespace

absl::StatusOr<std::string> SaveCheckpoint(Trainable& trainable, const OptimizerState& optimizer,
                                           const TrainerState& state, const CheckpointOptions& options) {
  const bool is_root = trainable.rank() == 0;
  const std::string final = absl::StrCat(options.root, "/", StepFolderName(state.step));
  const std::string partial = final + kPartialSuffix;

  absl::Status status = is_root ? BeginStepFolder(options.root, state.step) : absl::OkStatus();
  COHORT_RETURN_IF_ERROR(AgreeStatus(trainable, status));

  COHORT_ASSIGN_OR_RETURN(const std::vector<PlannedTensor> tensors, GatherTensors(trainable));
  const std::vector<WeightShard> shards = PlanWeightShards(tensors, options.shard_bytes);
  status = AgreeStatus(trainable, WriteOwnFiles(partial, trainable, optimizer, tensors, shards));

  if (status.ok()) {
    if (is_root) {
      const DataType dtype = tensors.empty() ? DataType::kF32 : tensors[0].info.dtype;
      const SavedTrainerState saved{state, optimizer.step, trainable.world()};
      status = FinishAndPublish(partial, saved, options, dtype, tensors, shards);
      if (status.ok()) RemoveOldOnes(options, state.step);
    }
    status = AgreeStatus(trainable, status);
  }
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
  absl::StatusOr<TrainerState> state = LoadOwnPart(trainable, config, optimizer, resolved);
  COHORT_RETURN_IF_ERROR(AgreeStatus(trainable, state.status()));
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
