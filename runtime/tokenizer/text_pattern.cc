#include "runtime/tokenizer/text_pattern.h"

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/unicode.h"

namespace cohort::runtime {

absl::StatusOr<TextPattern> TextPattern::FromJson(const nlohmann::json* value, const std::string& where) {
  TextPattern pattern;
  if (value == nullptr) return absl::InvalidArgumentError(absl::StrCat(where, " is missing"));
  COHORT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(*value, where));
  if (fields.Find("Regex") != nullptr) {
    COHORT_ASSIGN_OR_RETURN(const std::string expression, fields.String("Regex"));
    COHORT_ASSIGN_OR_RETURN(Regex regex, Regex::Compile(expression, where));
    pattern.regex_.push_back(std::move(regex));
    return pattern;
  }
  COHORT_ASSIGN_OR_RETURN(pattern.literal_, fields.String("String"));
  pattern.single_char_ = CountChars(pattern.literal_) == 1;
  return pattern;
}

absl::Status TextPattern::FindAll(absl::string_view text, std::vector<TextRange>* matches) const {
  if (!regex_.empty()) return regex_[0].FindAll(text, matches);
  if (literal_.empty()) return absl::OkStatus();
  for (size_t at = text.find(literal_); at != absl::string_view::npos;) {
    matches->push_back({at, at + literal_.size()});
    at = text.find(literal_, at + literal_.size());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> TextPattern::Replace(absl::string_view text, absl::string_view content) const {
  std::vector<TextRange> matches;
  COHORT_RETURN_IF_ERROR(FindAll(text, &matches));
  std::string out;
  size_t copied = 0;
  for (const TextRange& match : matches) {
    absl::StrAppend(&out, text.substr(copied, match.begin - copied), content);
    copied = match.end;
  }
  absl::StrAppend(&out, text.substr(copied));
  return out;
}

}  // namespace cohort::runtime
