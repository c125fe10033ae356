#include "runtime/tokenizer/post_processor.h"

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/policy.h"

namespace cohort::runtime {
namespace {

using nlohmann::json;
using IsToken = std::function<bool(int64_t)>;

absl::StatusOr<std::vector<int32_t>> ReadSpecialToken(const JsonFields& processor, const std::string& name,
                                                      const IsToken& is_token) {
  const json* table = processor.Find("special_tokens");
  const json* entry =
      table != nullptr && table->is_object() && table->contains(name) ? &(*table)[name] : nullptr;
  const std::string where = absl::StrCat(processor.where(), ".special_tokens[\"", name, "\"]");
  if (entry == nullptr) return absl::InvalidArgumentError(absl::StrCat(where, " is missing"));
  COHORT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(*entry, where));
  COHORT_ASSIGN_OR_RETURN(const json* list, fields.Array("ids"));
  std::vector<int32_t> ids;
  for (const json& id : *list) {
    if (!id.is_number_integer() || !is_token(id.get<int64_t>())) {
      return fields.Error(absl::StrCat("the id ", id.dump(), " belongs to no token"));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

// Puts the template's special tokens around what earlier processors made.
absl::Status AddTemplate(const JsonFields& fields, const IsToken& is_token, PostProcessor* result) {
  COHORT_ASSIGN_OR_RETURN(const json* pieces, fields.Array("single"));
  std::vector<int32_t> before, after;
  bool seen_text = false;
  for (size_t i = 0; i < pieces->size(); ++i) {
    const std::string where = absl::StrCat(fields.where(), ".single[", i, "]");
    COHORT_ASSIGN_OR_RETURN(const JsonFields piece, JsonFields::Of((*pieces)[i], where));
    if (piece.Find("Sequence") != nullptr) {
      COHORT_ASSIGN_OR_RETURN(const JsonFields sequence,
                              JsonFields::Of(*piece.Find("Sequence"), where + ".Sequence"));
      COHORT_ASSIGN_OR_RETURN(const std::string id, sequence.String("id"));
      if (id != "A" || seen_text)
        return sequence.Error("a template of one text must have the sequence A once");
      seen_text = true;
    } else if (piece.Find("SpecialToken") != nullptr) {
      COHORT_ASSIGN_OR_RETURN(const JsonFields special,
                              JsonFields::Of(*piece.Find("SpecialToken"), where + ".SpecialToken"));
      COHORT_ASSIGN_OR_RETURN(const std::string name, special.String("id"));
      COHORT_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, ReadSpecialToken(fields, name, is_token));
      std::vector<int32_t>& side = seen_text ? after : before;
      side.insert(side.end(), ids.begin(), ids.end());
    } else {
      return piece.Error("expected a Sequence or a SpecialToken");
    }
  }
  if (!seen_text) return fields.Error("the template of one text has no sequence A");
  result->prefix.insert(result->prefix.begin(), before.begin(), before.end());
  result->suffix.insert(result->suffix.end(), after.begin(), after.end());
  return absl::OkStatus();
}

absl::Status Add(const json& value, const std::string& where, int depth, const IsToken& is_token,
                 PostProcessor* result) {
  COHORT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(value, where));
  COHORT_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type == "ByteLevel") return absl::OkStatus();  // it only moves offsets
  if (type == "TemplateProcessing") return AddTemplate(fields, is_token, result);
  if (type == "Sequence") {
    if (depth >= tokenizer_policy::kMaxComponentDepth) return fields.Error("sequences are nested too deeply");
    COHORT_ASSIGN_OR_RETURN(const json* children, fields.Array("processors"));
    for (size_t i = 0; i < children->size(); ++i) {
      COHORT_RETURN_IF_ERROR(
          Add((*children)[i], absl::StrCat(where, ".processors[", i, "]"), depth + 1, is_token, result));
    }
    return absl::OkStatus();
  }
  return fields.Error(absl::StrCat("post-processor type \"", type, "\" is not supported"));
}

}  // namespace

absl::StatusOr<PostProcessor> PostProcessor::FromJson(const json* value, const std::string& where,
                                                      const IsToken& is_token) {
  PostProcessor result;
  if (value != nullptr) COHORT_RETURN_IF_ERROR(Add(*value, where, 0, is_token, &result));
  return result;
}

}  // namespace cohort::runtime
