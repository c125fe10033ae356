#include "runtime/checkpoint/hf_export.h"

#include <filesystem>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/checkpoint/optimizer_files.h"
#include "runtime/checkpoint/state_plan.h"
#include "runtime/checkpoint/trainer_state.h"
#include "runtime/checkpoint/weight_shards.h"
#include "runtime/staged_folder.h"

namespace cohort::runtime {
namespace {

namespace fs = std::filesystem;

// What is copied beside the weights where it lies beside the tokenizer.
constexpr const char* kTokenizerSiblings[] = {"tokenizer_config.json", "special_tokens_map.json",
                                              "generation_config.json"};

}  // namespace

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

absl::Status ExportFolder(const HfFolder& weights, const ModelConfig& config,
                          absl::Span<const NamedParameter> parameters, const std::string& to,
                          const ExportOptions& options) {
  COHORT_RETURN_IF_ERROR(CheckParameters(weights, config, parameters));
  // Of a checkpoint of bf16 weights.
  std::optional<OptimizerFiles> masters;
  const std::string state = absl::StrCat(weights.folder(), "/", kTrainerStateFile);
  if (options.dtype == DataType::kF32 && fs::exists(state)) {
    COHORT_ASSIGN_OR_RETURN(const SavedTrainerState saved, ReadTrainerState(state));
    COHORT_ASSIGN_OR_RETURN(masters, OptimizerFiles::Open(weights.folder(), saved.world));
  }
  std::vector<NamedTensor> tensors;
  absl::flat_hash_set<std::string> seen;
  for (const auto& [name, parameter] : parameters) {
    if (!seen.insert(name).second) continue;  // a copy of it
    const TensorInfo& info = *weights.Find(name);
    const std::string master = absl::StrCat(name, "/", kMaster);
    const SafetensorsFile* file = masters ? masters->Find(master) : nullptr;
    absl::StatusOr<Tensor> values = file != nullptr ? file->Read(master) : weights.Read(name);
    COHORT_RETURN_IF_ERROR(values.status());
    if (values->shape() != info.shape) {
      return absl::InvalidArgumentError(
          absl::StrCat(file->path(), ": tensor '", master, "' has another shape than the weights"));
    }
    // A balancing bias is state: it is not rounded.
    const DataType dtype = parameter->buffer ? info.dtype : options.dtype.value_or(info.dtype);
    tensors.push_back({name, *std::move(values), dtype});
  }
  StagedFolder folder(to);
  COHORT_RETURN_IF_ERROR(folder.Make(options.overwrite));
  COHORT_RETURN_IF_ERROR(WriteWeights(folder.path().string(), tensors, options.shard_bytes));
  ModelConfig written = config;
  written.torch_dtype = TorchName(tensors.empty() ? DataType::kF32 : tensors[0].dtype);
  COHORT_RETURN_IF_ERROR(WriteFileDurably((folder.path() / "config.json").string(), written.ToJson()));
  const std::string tokenizer = absl::StrCat(weights.folder(), "/tokenizer.json");
  COHORT_RETURN_IF_ERROR(CopyTokenizer(fs::exists(tokenizer) ? tokenizer : "", folder.path().string()));
  COHORT_RETURN_IF_ERROR(SyncFolder(folder.path().string()));
  return folder.Publish();
}

}  // namespace cohort::runtime
