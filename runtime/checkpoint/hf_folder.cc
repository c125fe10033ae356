#include "runtime/checkpoint/hf_folder.h"

#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "comm/check.h"
#include "runtime/checkpoint/policy.h"
#include "runtime/checkpoint/weight_shards.h"
#include "runtime/tokenizer/json_fields.h"

namespace cohort::runtime {
namespace {

// Tensors that some checkpoints carry though every runtime computes them itself.
constexpr absl::string_view kHarmlessSuffixes[] = {"rotary_emb.inv_freq"};
constexpr char kHead[] = "lm_head.weight";
constexpr char kEmbedding[] = "model.embed_tokens.weight";
constexpr char kFinalNorm[] = "model.norm.weight";
constexpr char kBlockPrefix[] = "model.layers.";

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

// "model.layers.0.mlp.experts.7.w1" -> ("model.layers.0.mlp.experts.*.w1", 7); nullopt
// where no expert is named.
struct ExpertName {
  std::string pattern;
  int64_t expert;
};
std::optional<ExpertName> ParseExpertName(absl::string_view name) {
  constexpr absl::string_view kMark = ".experts.";
  const size_t mark = name.find(kMark);
  if (mark == absl::string_view::npos) return std::nullopt;
  const size_t begin = mark + kMark.size();
  const size_t end = std::min(name.find('.', begin), name.size());
  int64_t expert;
  if (!absl::SimpleAtoi(name.substr(begin, end - begin), &expert) || expert < 0) return std::nullopt;
  return ExpertName{absl::StrCat(name.substr(0, begin), "*", name.substr(end)), expert};
}

std::string ShapeText(const Shape& shape) { return absl::StrCat("[", absl::StrJoin(shape, ","), "]"); }

void AddProblem(absl::string_view what, std::vector<std::string> names, std::vector<std::string>* problems) {
  if (names.empty()) return;
  std::sort(names.begin(), names.end());
  const size_t listed = std::min(names.size(), checkpoint_policy::kListedNames);
  std::string text = absl::StrCat(what, ": ", absl::StrJoin(names.begin(), names.begin() + listed, ", "));
  if (listed < names.size()) absl::StrAppend(&text, " and ", names.size() - listed, " more");
  problems->push_back(std::move(text));
}

bool IsFloat(DataType dtype) {
  return dtype == DataType::kF32 || dtype == DataType::kBF16 || dtype == DataType::kF16 ||
         dtype == DataType::kF64;
}

}  // namespace

absl::StatusOr<HfFolder> HfFolder::Open(const std::string& folder) {
  HfFolder result;
  result.folder_ = folder;
  const std::string single = absl::StrCat(folder, "/", kSingleWeightsFile);
  const std::string index = absl::StrCat(folder, "/", kWeightsIndexFile);
  if (Exists(single)) {
    COHORT_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(single));
    for (const TensorInfo& tensor : file.tensors()) result.file_of_[tensor.name] = 0;
    result.files_.push_back(std::move(file));
  } else if (Exists(index)) {
    COHORT_RETURN_IF_ERROR(result.AddIndex(index));
  } else {
    return absl::NotFoundError(absl::StrCat(folder, " has neither ", kSingleWeightsFile, " nor ",
                                            kWeightsIndexFile,
                                            Exists(folder) ? "" : ": there is no such folder"));
  }
  return result;
}

absl::Status HfFolder::AddIndex(const std::string& path) {
  COHORT_ASSIGN_OR_RETURN(const nlohmann::json index, ReadJsonFile(path));
  const auto error = [&](auto&&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", parts...));
  };
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return error("there is no object 'weight_map'");
  }
  absl::flat_hash_map<std::string, size_t> opened;
  std::vector<std::string> absent;
  for (const auto& [name, value] : index["weight_map"].items()) {
    if (!value.is_string()) return error("the file of tensor '", name, "' is not a string");
    const std::string file = value.get<std::string>();
    if (file.empty() || absl::StrContains(file, '/') || file == "..") {
      return error("the file '", file, "' of tensor '", name, "' is not a name in this folder");
    }
    const auto [it, is_new] = opened.try_emplace(file, files_.size());
    if (is_new) {
      const std::string shard = absl::StrCat(folder_, "/", file);
      if (!Exists(shard)) {
        return absl::NotFoundError(
            absl::StrCat(path, ": the shard ", file, " (of tensor '", name, "') is missing"));
      }
      COHORT_ASSIGN_OR_RETURN(SafetensorsFile opened_file, SafetensorsFile::Open(shard));
      files_.push_back(std::move(opened_file));
    }
    if (files_[it->second].Find(name) == nullptr) {
      absent.push_back(absl::StrCat(name, " (", file, ")"));
    } else {
      file_of_[name] = it->second;
    }
  }
  std::vector<std::string> problems;
  AddProblem("tensors that their shards do not have", std::move(absent), &problems);
  if (!problems.empty()) return error(problems[0]);
  return absl::OkStatus();
}

std::vector<std::string> HfFolder::names() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : file_of_) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

const TensorInfo* HfFolder::Find(const std::string& name) const {
  const auto it = file_of_.find(name);
  return it == file_of_.end() ? nullptr : files_[it->second].Find(name);
}

absl::StatusOr<Tensor> HfFolder::Read(const std::string& name) const {
  const auto it = file_of_.find(name);
  if (it == file_of_.end()) return absl::NotFoundError(absl::StrCat(folder_, " has no tensor '", name, "'"));
  return files_[it->second].Read(name);
}

absl::StatusOr<Tensor> HfFolder::ReadPiece(const Piece& piece) const {
  const auto it = file_of_.find(piece.name);
  if (it == file_of_.end())
    return absl::NotFoundError(absl::StrCat(folder_, " has no tensor '", piece.name, "'"));
  return files_[it->second].ReadPiece(piece);
}

Elsewhere OutsideOf(const DecoderPart& part, const ModelConfig& config) {
  const int64_t blocks = config.num_hidden_layers;
  const int64_t first = part.first_block, last = part.last_block < 0 ? blocks : part.last_block;
  return [=, embedding = part.embedding, head = part.head](const std::string& name) {
    if (name == kEmbedding) return !embedding;
    if (name == kFinalNorm || name == kHead) return !head;
    absl::string_view rest = name;
    if (!absl::ConsumePrefix(&rest, kBlockPrefix)) return false;
    int64_t block;
    if (!absl::SimpleAtoi(rest.substr(0, rest.find('.')), &block)) return false;
    return block >= 0 && block < blocks && (block < first || block >= last);
  };
}

absl::Status CheckParameters(const HfFolder& weights, const ModelConfig& config,
                             absl::Span<const NamedParameter> parameters, const Elsewhere& elsewhere) {
  std::vector<std::string> missing, misshapen, mistyped, unexpected;
  absl::flat_hash_set<std::string> known, expert_patterns;
  for (const auto& [name, parameter] : parameters) {
    if (!known.insert(name).second) continue;  // another piece of it
    if (parameter->placement == Placement::kExpert) {
      if (auto expert = ParseExpertName(name)) expert_patterns.insert(expert->pattern);
    }
    const TensorInfo* info = weights.Find(name);
    if (info == nullptr) {
      missing.push_back(name);
    } else if (info->shape != parameter->full_shape) {
      misshapen.push_back(absl::StrCat(name, " is ", ShapeText(info->shape), " instead of ",
                                       ShapeText(parameter->full_shape)));
    } else if (!IsFloat(info->dtype)) {
      mistyped.push_back(absl::StrCat(name, " is ", SafetensorsName(info->dtype)));
    }
  }
  for (const std::string& name : weights.names()) {
    if (known.contains(name) || (name == kHead && config.tie_word_embeddings)) continue;
    if (elsewhere && elsewhere(name)) continue;
    if (std::any_of(std::begin(kHarmlessSuffixes), std::end(kHarmlessSuffixes),
                    [&](absl::string_view suffix) { return absl::EndsWith(name, suffix); })) {
      continue;
    }
    const std::optional<ExpertName> expert = ParseExpertName(name);
    if (expert && expert->expert < config.num_experts && expert_patterns.contains(expert->pattern)) continue;
    unexpected.push_back(name);
  }
  std::vector<std::string> problems;
  AddProblem("missing", std::move(missing), &problems);
  AddProblem("wrong shapes", std::move(misshapen), &problems);
  AddProblem("not of a float type", std::move(mistyped), &problems);
  AddProblem("unexpected", std::move(unexpected), &problems);
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the weights in ", weights.folder(),
                                                 " do not fit the model (", config.model_type, "). ",
                                                 absl::StrJoin(problems, "; ")));
}

absl::Status CopyParameters(const HfFolder& weights, absl::Span<const NamedParameter> parameters) {
  for (const auto& [name, parameter] : parameters) {
    Piece piece = parameter->piece();
    piece.name = name;
    if (piece.empty()) continue;
    COHORT_ASSIGN_OR_RETURN(const Tensor values, weights.ReadPiece(piece));
    CopyValues(values, parameter->value.View({piece.size()}));
    if (parameter->master.defined() && parameter->master.raw() != parameter->value.raw()) {
      CopyValues(values, parameter->master.View({piece.size()}));
    }
  }
  return absl::OkStatus();
}

absl::Status LoadParameters(const HfFolder& weights, const ModelConfig& config,
                            absl::Span<const NamedParameter> parameters, const Elsewhere& elsewhere) {
  COHORT_RETURN_IF_ERROR(CheckParameters(weights, config, parameters, elsewhere));
  return CopyParameters(weights, parameters);
}

absl::Status LoadWeights(const std::string& folder, Decoder& decoder) {
  COHORT_ASSIGN_OR_RETURN(const HfFolder weights, HfFolder::Open(folder));
  std::vector<NamedParameter> parameters;
  for (ParameterGroup& group : decoder.groups()) {
    for (const auto& parameter : group.parameters()) parameters.push_back({parameter->name, parameter.get()});
  }
  return LoadParameters(weights, decoder.config(), parameters, OutsideOf(decoder.part(), decoder.config()));
}

}  // namespace cohort::runtime
