// Regular expressions as tokenizer.json files write them (Oniguruma's Ruby syntax), run by PCRE2.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cohort::runtime {

struct TextRange {
  size_t begin = 0, end = 0;
};

// Immutable and thread-safe once compiled; copies share the compiled program.
class Regex {
 public:
  // InvalidArgument, naming `where`, for a pattern that does not compile or uses
  // syntax that PCRE2 reads otherwise.
  static absl::StatusOr<Regex> Compile(absl::string_view pattern, absl::string_view where);

  // Appends the non-empty matches from left to right. `text` must be valid UTF-8. ResourceExhausted where the
  // pattern backtracks beyond PCRE2's limits.
  absl::Status FindAll(absl::string_view text, std::vector<TextRange>* matches) const;

 private:
  struct Program;
  explicit Regex(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
  std::shared_ptr<const Program> program_;
};

}  // namespace cohort::runtime
