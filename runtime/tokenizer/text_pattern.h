// The "pattern" of Split and Replace: {"String": "..."} or {"Regex": "..."}.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/regex.h"

namespace cohort::runtime {

class TextPattern {
 public:
  static absl::StatusOr<TextPattern> FromJson(const nlohmann::json* value, const std::string& where);

  // Appends the non-empty matches from left to right; `text` is valid UTF-8.
  absl::Status FindAll(absl::string_view text, std::vector<TextRange>* matches) const;

  // `text` with every match replaced.
  absl::StatusOr<std::string> Replace(absl::string_view text, absl::string_view content) const;

  // Whether a match is always one and the same character, so that text can be matched piece by piece.
  bool is_single_char() const { return single_char_; }

 private:
  std::string literal_;       // used where regex_ is empty
  std::vector<Regex> regex_;  // none or one
  bool single_char_ = false;
};

}  // namespace cohort::runtime
