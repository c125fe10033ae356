#include "runtime/tokenizer/pre_tokenizer.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/policy.h"
#include "runtime/tokenizer/unicode.h"

namespace cohort::runtime {
namespace {

using nlohmann::json;
using StepPtr = std::shared_ptr<const PreTokenizer::Step>;

// Rewrites every word into a new text.
template <typename AppendWord>
void Rewrite(PreTokenized* pieces, AppendWord append_word) {
  PreTokenized out;
  out.text.reserve(pieces->text.size() * 2);
  out.words.reserve(pieces->words.size());
  for (const PreTokenized::Word& word : pieces->words) {
    const size_t begin = out.text.size();
    append_word(absl::string_view(pieces->text).substr(word.begin, word.end - word.begin), word.at_start,
                &out.text);
    out.words.push_back({begin, out.text.size(), word.at_start});
  }
  *pieces = std::move(out);
}

// Puts a space before words that have none.
class AddPrefixSpaceStep : public PreTokenizer::Step {
 public:
  absl::Status Apply(PreTokenized* pieces) const override {
    Rewrite(pieces, [](absl::string_view word, bool at_start, std::string* out) {
      absl::StrAppend(out, word[0] == ' ' ? "" : " ", word);
    });
    return absl::OkStatus();
  }
};

// Writes every byte as its character of the byte-level alphabet.
class ByteLevelStep : public PreTokenizer::Step {
 public:
  absl::Status Apply(PreTokenized* pieces) const override {
    const auto& alphabet = ByteLevelAlphabet();
    Rewrite(pieces, [&](absl::string_view word, bool at_start, std::string* out) {
      for (const char c : word) *out += alphabet[static_cast<uint8_t>(c)];
    });
    return absl::OkStatus();
  }
};

enum class PrependScheme { kAlways, kFirst, kNever };

// SentencePiece's spaces: each becomes the replacement character, and may begin a new word.
class MetaspaceStep : public PreTokenizer::Step {
 public:
  MetaspaceStep(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}

  absl::Status Apply(PreTokenized* pieces) const override {
    Rewrite(pieces, [&](absl::string_view word, bool at_start, std::string* out) {
      const bool prepend =
          scheme_ == PrependScheme::kAlways || (scheme_ == PrependScheme::kFirst && at_start);
      if (prepend && word[0] != ' ' && !absl::StartsWith(word, replacement_)) *out += replacement_;
      for (const char c : word) {
        if (c == ' ') {
          *out += replacement_;
        } else {
          *out += c;
        }
      }
    });
    if (!split_) return absl::OkStatus();
    std::vector<PreTokenized::Word> words;
    for (const PreTokenized::Word& word : pieces->words) {
      size_t begin = word.begin;
      while (begin < word.end) {  // a replacement character begins a word
        size_t end = pieces->text.find(replacement_, begin + 1);
        if (end > word.end) end = word.end;  // also npos
        words.push_back({begin, end, word.at_start && begin == word.begin});
        begin = end;
      }
    }
    pieces->words.swap(words);
    return absl::OkStatus();
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

absl::Status AddByteLevel(const JsonFields& fields, std::vector<StepPtr>* steps) {
  COHORT_ASSIGN_OR_RETURN(const bool prefix, fields.BoolOr("add_prefix_space", true));
  COHORT_ASSIGN_OR_RETURN(const bool use_regex, fields.BoolOr("use_regex", true));
  if (prefix) steps->push_back(std::make_shared<AddPrefixSpaceStep>());
  if (use_regex) {
    COHORT_ASSIGN_OR_RETURN(StepPtr split, MakeGpt2SplitStep(fields.where()));
    steps->push_back(std::move(split));
  }
  steps->push_back(std::make_shared<ByteLevelStep>());
  return absl::OkStatus();
}

absl::Status AddMetaspace(const JsonFields& fields, std::vector<StepPtr>* steps) {
  COHORT_ASSIGN_OR_RETURN(std::string replacement, fields.StringOr("replacement", "\u2581"));
  if (CountChars(replacement) != 1) return fields.Error("\"replacement\" must be one character");
  COHORT_ASSIGN_OR_RETURN(const bool split, fields.BoolOr("split", true));
  // Older files have add_prefix_space instead of prepend_scheme.
  COHORT_ASSIGN_OR_RETURN(const bool prefix, fields.BoolOr("add_prefix_space", true));
  COHORT_ASSIGN_OR_RETURN(const std::string name,
                          fields.StringOr("prepend_scheme", prefix ? "always" : "never"));
  PrependScheme scheme;
  if (name == "always") {
    scheme = PrependScheme::kAlways;
  } else if (name == "first") {
    scheme = PrependScheme::kFirst;
  } else if (name == "never") {
    scheme = PrependScheme::kNever;
  } else {
    return fields.Error(absl::StrCat("prepend_scheme \"", name, "\" is not supported"));
  }
  steps->push_back(std::make_shared<MetaspaceStep>(std::move(replacement), scheme, split));
  return absl::OkStatus();
}

absl::Status AddSteps(const json& value, const std::string& where, int depth, std::vector<StepPtr>* steps) {
  COHORT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(value, where));
  COHORT_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type == "Sequence") {
    if (depth >= tokenizer_policy::kMaxComponentDepth) return fields.Error("sequences are nested too deeply");
    COHORT_ASSIGN_OR_RETURN(const json* children, fields.Array("pretokenizers"));
    for (size_t i = 0; i < children->size(); ++i) {
      COHORT_RETURN_IF_ERROR(
          AddSteps((*children)[i], absl::StrCat(where, ".pretokenizers[", i, "]"), depth + 1, steps));
    }
    return absl::OkStatus();
  }
  if (type == "ByteLevel") return AddByteLevel(fields, steps);
  if (type == "Metaspace") return AddMetaspace(fields, steps);
  COHORT_ASSIGN_OR_RETURN(StepPtr step, MakeSplitStep(type, value, where));
  if (step == nullptr)
    return fields.Error(absl::StrCat("pre-tokenizer type \"", type, "\" is not supported"));
  steps->push_back(std::move(step));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::FromJson(const json* value, const std::string& where) {
  PreTokenizer pre_tokenizer;
  if (value != nullptr) COHORT_RETURN_IF_ERROR(AddSteps(*value, where, 0, &pre_tokenizer.steps_));
  return pre_tokenizer;
}

absl::StatusOr<PreTokenized> PreTokenizer::Split(std::string text, bool at_start) const {
  PreTokenized pieces;
  pieces.text = std::move(text);
  if (!pieces.text.empty()) pieces.words.push_back({0, pieces.text.size(), at_start});
  for (const auto& step : steps_) COHORT_RETURN_IF_ERROR(step->Apply(&pieces));
  return pieces;
}

}  // namespace cohort::runtime
