#include "runtime/tokenizer/special_ids.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/tokenizer/json_fields.h"

namespace cohort::runtime {
namespace {

using nlohmann::json;
using IdOf = std::function<std::optional<int32_t>(absl::string_view)>;

void AddEos(int32_t id, SpecialIds* ids) {
  if (std::find(ids->eos.begin(), ids->eos.end(), id) == ids->eos.end()) ids->eos.push_back(id);
}

// "bos_token": "<s>" or {"content": "<s>", ...}.
absl::StatusOr<std::optional<int32_t>> ReadTokenField(const JsonFields& fields, const char* key,
                                                      const IdOf& id_of) {
  const json* value = fields.Find(key);
  if (value == nullptr) return std::nullopt;
  std::string token;
  if (value->is_object()) {
    COHORT_ASSIGN_OR_RETURN(const JsonFields object,
                            JsonFields::Of(*value, absl::StrCat(fields.where(), ": ", key)));
    COHORT_ASSIGN_OR_RETURN(token, object.String("content"));
  } else {
    COHORT_ASSIGN_OR_RETURN(token, fields.String(key));
  }
  const std::optional<int32_t> id = id_of(token);
  if (!id)
    return fields.Error(absl::StrCat("the ", key, " \"", token, "\" is not in the tokenizer's vocabulary"));
  return id;
}

// "eos_token_id": 2 or [2, 3].
absl::StatusOr<std::vector<int32_t>> ReadIdField(const JsonFields& fields, const char* key) {
  const json* value = fields.Find(key);
  std::vector<int32_t> ids;
  if (value == nullptr) return ids;
  const json list = value->is_array() ? *value : json::array({*value});
  for (const json& id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) {
      return fields.Error(
          absl::StrCat("\"", key, "\" must be a token id or a list of them, it is ", value->dump()));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

}  // namespace

absl::StatusOr<SpecialIds> ReadSpecialIds(const std::string& folder, const IdOf& id_of) {
  SpecialIds ids;
  for (const char* name : {"tokenizer_config.json", "generation_config.json", "config.json"}) {
    const std::string path = (std::filesystem::path(folder) / name).string();
    std::error_code error;
    if (!std::filesystem::exists(path, error)) continue;
    COHORT_ASSIGN_OR_RETURN(const json root, ReadJsonFile(path));
    COHORT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(root, path));
    COHORT_ASSIGN_OR_RETURN(const std::optional<int32_t> bos, ReadTokenField(fields, "bos_token", id_of));
    COHORT_ASSIGN_OR_RETURN(const std::optional<int32_t> eos, ReadTokenField(fields, "eos_token", id_of));
    COHORT_ASSIGN_OR_RETURN(const std::vector<int32_t> bos_ids, ReadIdField(fields, "bos_token_id"));
    COHORT_ASSIGN_OR_RETURN(const std::vector<int32_t> eos_ids, ReadIdField(fields, "eos_token_id"));
    if (!ids.bos && bos) ids.bos = bos;
    if (!ids.bos && !bos_ids.empty()) ids.bos = bos_ids[0];
    if (eos) AddEos(*eos, &ids);
    for (const int32_t id : eos_ids) AddEos(id, &ids);
  }
  return ids;
}

}  // namespace cohort::runtime
