// Pre-tokenizers that cut without rewriting: Split, Digits, Punctuation, Whitespace, WhitespaceSplit.
#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/pre_tokenizer.h"
#include "runtime/tokenizer/text_pattern.h"
#include "runtime/tokenizer/unicode.h"

namespace cohort::runtime {
namespace {

using StepPtr = std::shared_ptr<const PreTokenizer::Step>;

// What becomes of the pieces that match (the delimiters).
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct BehaviorName {
  const char* name;
  SplitBehavior behavior;
};
constexpr BehaviorName kBehaviors[] = {
    {"Removed", SplitBehavior::kRemoved},
    {"Isolated", SplitBehavior::kIsolated},
    {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
    {"MergedWithNext", SplitBehavior::kMergedWithNext},
    {"Contiguous", SplitBehavior::kContiguous},
};

// A stretch of a word that either matches or lies between matches.
struct Stretch {
  TextRange range;
  bool match;
};

// Appends matches in the word, left to right.
using Finder = std::function<absl::Status(absl::string_view word, std::vector<TextRange>* matches)>;

// Applies a behaviour to stretches that tile a word, in place.
void Merge(SplitBehavior behavior, std::vector<Stretch>* stretches) {
  std::vector<Stretch> out;
  bool previous_match = false;
  switch (behavior) {
    case SplitBehavior::kIsolated:
      return;
    case SplitBehavior::kRemoved:
      for (const Stretch& s : *stretches) {
        if (!s.match) out.push_back(s);
      }
      break;
    case SplitBehavior::kContiguous:
      for (const Stretch& s : *stretches) {
        if (!out.empty() && out.back().match == s.match) {
          out.back().range.end = s.range.end;
        } else {
          out.push_back(s);
        }
      }
      break;
    case SplitBehavior::kMergedWithPrevious:
      for (const Stretch& s : *stretches) {
        if (s.match && !previous_match && !out.empty()) {
          out.back().range.end = s.range.end;
        } else {
          out.push_back(s);
        }
        previous_match = s.match;
      }
      break;
    case SplitBehavior::kMergedWithNext:
      for (auto s = stretches->rbegin(); s != stretches->rend(); ++s) {
        if (s->match && !previous_match && !out.empty()) {
          out.back().range.begin = s->range.begin;
        } else {
          out.push_back(*s);
        }
        previous_match = s->match;
      }
      std::reverse(out.begin(), out.end());
      break;
  }
  stretches->swap(out);
}

class SplitStep : public PreTokenizer::Step {
 public:
  SplitStep(Finder finder, SplitBehavior behavior, bool invert)
      : finder_(std::move(finder)), behavior_(behavior), invert_(invert) {}

  absl::Status Apply(PreTokenized* pieces) const override {
    std::vector<PreTokenized::Word> out;
    std::vector<TextRange> matches;
    std::vector<Stretch> stretches;
    for (const PreTokenized::Word& word : pieces->words) {
      const auto text = absl::string_view(pieces->text).substr(word.begin, word.end - word.begin);
      matches.clear();
      stretches.clear();
      COHORT_RETURN_IF_ERROR(finder_(text, &matches));
      size_t covered = 0;
      for (const TextRange& match : matches) {
        if (match.begin > covered) stretches.push_back({{covered, match.begin}, invert_});
        stretches.push_back({match, !invert_});
        covered = match.end;
      }
      if (covered < text.size()) stretches.push_back({{covered, text.size()}, invert_});
      Merge(behavior_, &stretches);
      for (const Stretch& s : stretches) {
        out.push_back(
            {word.begin + s.range.begin, word.begin + s.range.end, word.at_start && s.range.begin == 0});
      }
    }
    pieces->words.swap(out);
    return absl::OkStatus();
  }

 private:
  Finder finder_;
  SplitBehavior behavior_;
  bool invert_;
};

Finder FindPattern(TextPattern pattern) {
  return [pattern = std::move(pattern)](absl::string_view word, std::vector<TextRange>* matches) {
    return pattern.FindAll(word, matches);
  };
}

Finder FindRegex(Regex regex) {
  return [regex = std::move(regex)](absl::string_view word, std::vector<TextRange>* matches) {
    return regex.FindAll(word, matches);
  };
}

// Every character of a class is a match of its own.
Finder FindChars(bool (*is_member)(char32_t)) {
  return [is_member](absl::string_view word, std::vector<TextRange>* matches) {
    for (size_t i = 0; i < word.size();) {
      const DecodedChar decoded = DecodeUtf8(word.substr(i));
      if (is_member(decoded.code_point)) matches->push_back({i, i + decoded.bytes});
      i += decoded.bytes;
    }
    return absl::OkStatus();
  };
}

absl::StatusOr<SplitBehavior> ReadBehavior(const JsonFields& fields, absl::string_view fallback) {
  COHORT_ASSIGN_OR_RETURN(const std::string name, fields.StringOr("behavior", fallback));
  for (const BehaviorName& candidate : kBehaviors) {
    if (name == candidate.name) return candidate.behavior;
  }
  return fields.Error(absl::StrCat("behavior \"", name, "\" is not supported"));
}

absl::StatusOr<StepPtr> MakeRegexStep(absl::string_view pattern, SplitBehavior behavior, bool invert,
                                      const std::string& where) {
  COHORT_ASSIGN_OR_RETURN(Regex regex, Regex::Compile(pattern, where));
  return std::make_shared<SplitStep>(FindRegex(std::move(regex)), behavior, invert);
}

}  // namespace

absl::StatusOr<StepPtr> MakeGpt2SplitStep(const std::string& where) {
  return MakeRegexStep(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
                       SplitBehavior::kIsolated, false, where);
}

absl::StatusOr<StepPtr> MakeSplitStep(const std::string& type, const nlohmann::json& value,
                                      const std::string& where) {
  COHORT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(value, where));
  if (type == "Split") {
    COHORT_ASSIGN_OR_RETURN(TextPattern pattern,
                            TextPattern::FromJson(fields.Find("pattern"), where + ".pattern"));
    COHORT_ASSIGN_OR_RETURN(const std::string unused, fields.String("behavior"));  // it has no default
    COHORT_ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(fields, unused));
    COHORT_ASSIGN_OR_RETURN(const bool invert, fields.BoolOr("invert", false));
    return std::make_shared<SplitStep>(FindPattern(std::move(pattern)), behavior, invert);
  }
  if (type == "Digits") {
    COHORT_ASSIGN_OR_RETURN(const bool individual, fields.BoolOr("individual_digits", false));
    const SplitBehavior behavior = individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
    return std::make_shared<SplitStep>(FindChars(IsNumeric), behavior, false);
  }
  if (type == "Punctuation") {
    COHORT_ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(fields, "Isolated"));
    return std::make_shared<SplitStep>(FindChars(IsPunctuation), behavior, false);
  }
  if (type == "WhitespaceSplit") {
    return std::make_shared<SplitStep>(FindChars(IsWhitespace), SplitBehavior::kRemoved, false);
  }
  if (type == "Whitespace") {
    // \w+|[^\w\s]+ with the \w of Unicode TR18
    constexpr char kWord[] = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control})";
    return MakeRegexStep(absl::StrCat("[", kWord, "]+|[^", kWord, "\\s]+"), SplitBehavior::kRemoved, true,
                         where);
  }
  return StepPtr();
}

}  // namespace cohort::runtime
