// Pre-tokenizers: they cut a normalized text into the words that BPE merges within.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace cohort::runtime {

// A text and the words it is cut into, in order. Steps that only cut change `words`; steps that rewrite
// (ByteLevel, Metaspace) change `text` too.
struct PreTokenized {
  struct Word {
    size_t begin, end;  // in `text`; never empty
    bool at_start;      // begins where the whole input began (Metaspace's prepend_scheme "first")
  };
  std::string text;
  std::vector<Word> words;
};

// Immutable and thread-safe. A default-made one leaves the text as one word.
class PreTokenizer {
 public:
  class Step {
   public:
    virtual ~Step() = default;
    virtual absl::Status Apply(PreTokenized* pieces) const = 0;
  };

  PreTokenizer() = default;

  // `value` is the "pre_tokenizer" of a tokenizer.json (may be null). InvalidArgument for unknown types.
  static absl::StatusOr<PreTokenizer> FromJson(const nlohmann::json* value, const std::string& where);

  // `text` is valid UTF-8; `at_start` says that nothing of the input lies before it.
  absl::StatusOr<PreTokenized> Split(std::string text, bool at_start) const;

 private:
  std::vector<std::shared_ptr<const Step>> steps_;
};

// The steps that only cut (pre_tokenizer_split.cc); nullptr where `type` is none of them.
absl::StatusOr<std::shared_ptr<const PreTokenizer::Step>> MakeSplitStep(const std::string& type,
                                                                        const nlohmann::json& value,
                                                                        const std::string& where);

// Cuts by GPT-2's pattern, which ByteLevel uses where use_regex is set.
absl::StatusOr<std::shared_ptr<const PreTokenizer::Step>> MakeGpt2SplitStep(const std::string& where);

}  // namespace cohort::runtime
