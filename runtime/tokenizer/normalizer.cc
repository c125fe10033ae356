#include "runtime/tokenizer/normalizer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/policy.h"
#include "runtime/tokenizer/text_pattern.h"
#include "runtime/tokenizer/unicode.h"

namespace cohort::runtime {
namespace {

using nlohmann::json;
using StepPtr = std::shared_ptr<const Normalizer::Step>;
using StepOr = absl::StatusOr<StepPtr>;

class UnicodeStep : public Normalizer::Step {
 public:
  explicit UnicodeStep(NormalForm form) : form_(form) {}
  absl::StatusOr<std::string> Apply(std::string text) const override {
    const auto is_ascii = [](char c) { return static_cast<uint8_t>(c) < 0x80; };
    if (std::all_of(text.begin(), text.end(), is_ascii)) return text;  // ASCII is its own normal form
    return NormalizeUnicode(form_, text);
  }

 private:
  NormalForm form_;
};

class LowercaseStep : public Normalizer::Step {
 public:
  absl::StatusOr<std::string> Apply(std::string text) const override { return LowercaseUnicode(text); }
};

class PrependStep : public Normalizer::Step {
 public:
  explicit PrependStep(std::string content) : content_(std::move(content)) {}
  absl::StatusOr<std::string> Apply(std::string text) const override {
    return text.empty() ? text : absl::StrCat(content_, text);
  }

 private:
  std::string content_;
};

class ReplaceStep : public Normalizer::Step {
 public:
  ReplaceStep(TextPattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  absl::StatusOr<std::string> Apply(std::string text) const override {
    return pattern_.Replace(text, content_);
  }

 private:
  TextPattern pattern_;
  std::string content_;
};

class StripStep : public Normalizer::Step {
 public:
  StripStep(bool left, bool right) : left_(left), right_(right) {}
  absl::StatusOr<std::string> Apply(std::string text) const override {
    size_t begin = 0, end = 0;  // of what is neither leading nor trailing white space
    bool seen = false;
    for (size_t i = 0; i < text.size();) {
      const DecodedChar decoded = DecodeUtf8(absl::string_view(text).substr(i));
      if (!IsWhitespace(decoded.code_point)) {
        if (!seen) begin = i;
        seen = true;
        end = i + decoded.bytes;
      }
      i += decoded.bytes;
    }
    if (!seen) return std::string(left_ || right_ ? "" : text);
    if (!left_) begin = 0;
    if (!right_) end = text.size();
    return text.substr(begin, end - begin);
  }

 private:
  bool left_, right_;
};

template <NormalForm form>
StepOr MakeUnicode(const JsonFields& fields) {
  return std::make_shared<UnicodeStep>(form);
}

StepOr MakeLowercase(const JsonFields& fields) { return std::make_shared<LowercaseStep>(); }

StepOr MakePrepend(const JsonFields& fields) {
  COHORT_ASSIGN_OR_RETURN(std::string content, fields.String("prepend"));
  return std::make_shared<PrependStep>(std::move(content));
}

StepOr MakeReplace(const JsonFields& fields) {
  COHORT_ASSIGN_OR_RETURN(TextPattern pattern,
                          TextPattern::FromJson(fields.Find("pattern"), fields.where() + ".pattern"));
  COHORT_ASSIGN_OR_RETURN(std::string content, fields.String("content"));
  return std::make_shared<ReplaceStep>(std::move(pattern), std::move(content));
}

StepOr MakeStrip(const JsonFields& fields) {
  COHORT_ASSIGN_OR_RETURN(const bool left, fields.BoolOr("strip_left", true));
  COHORT_ASSIGN_OR_RETURN(const bool right, fields.BoolOr("strip_right", true));
  return std::make_shared<StripStep>(left, right);
}

struct StepType {
  const char* name;
  StepOr (*make)(const JsonFields& fields);
};
constexpr StepType kStepTypes[] = {
    {"NFC", MakeUnicode<NormalForm::kNfc>},
    {"NFD", MakeUnicode<NormalForm::kNfd>},
    {"NFKC", MakeUnicode<NormalForm::kNfkc>},
    {"NFKD", MakeUnicode<NormalForm::kNfkd>},
    {"Lowercase", MakeLowercase},
    {"Prepend", MakePrepend},
    {"Replace", MakeReplace},
    {"Strip", MakeStrip},
};

absl::Status AddSteps(const json& value, const std::string& where, int depth, std::vector<StepPtr>* steps) {
  COHORT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(value, where));
  COHORT_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type == "Sequence") {
    if (depth >= tokenizer_policy::kMaxComponentDepth) return fields.Error("sequences are nested too deeply");
    COHORT_ASSIGN_OR_RETURN(const json* children, fields.Array("normalizers"));
    for (size_t i = 0; i < children->size(); ++i) {
      COHORT_RETURN_IF_ERROR(
          AddSteps((*children)[i], absl::StrCat(where, ".normalizers[", i, "]"), depth + 1, steps));
    }
    return absl::OkStatus();
  }
  for (const StepType& candidate : kStepTypes) {
    if (type != candidate.name) continue;
    COHORT_ASSIGN_OR_RETURN(StepPtr step, candidate.make(fields));
    steps->push_back(std::move(step));
    return absl::OkStatus();
  }
  return fields.Error(absl::StrCat("normalizer type \"", type, "\" is not supported"));
}

}  // namespace

absl::StatusOr<Normalizer> Normalizer::FromJson(const json* value, const std::string& where) {
  Normalizer normalizer;
  if (value != nullptr) COHORT_RETURN_IF_ERROR(AddSteps(*value, where, 0, &normalizer.steps_));
  return normalizer;
}

absl::StatusOr<std::string> Normalizer::Normalize(std::string text) const {
  for (const auto& step : steps_) {
    COHORT_ASSIGN_OR_RETURN(text, step->Apply(std::move(text)));
  }
  return text;
}

}  // namespace cohort::runtime
