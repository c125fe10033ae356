#include "runtime/tokenizer/decoder.h"

#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "comm/check.h"
#include "runtime/tokenizer/decoder_steps.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/policy.h"
#include "runtime/tokenizer/text_pattern.h"
#include "runtime/tokenizer/unicode.h"

namespace cohort::runtime {
namespace {

using nlohmann::json;
using FactoryPtr = std::shared_ptr<const TokenDecoder::Factory>;
using FactoryOr = absl::StatusOr<FactoryPtr>;

// A factory made of a function.
class FunctionFactory : public TokenDecoder::Factory {
 public:
  using Make_ = std::function<std::unique_ptr<DecoderStep>(bool fused)>;
  FunctionFactory(Make_ make, bool fuses) : make_(std::move(make)), fuses_(fuses) {}
  std::unique_ptr<DecoderStep> Make(bool fused) const override { return make_(fused); }
  bool fuses() const override { return fuses_; }

 private:
  Make_ make_;
  bool fuses_;
};

FactoryPtr MakeFactory(FunctionFactory::Make_ make, bool fuses = false) {
  return std::make_shared<FunctionFactory>(std::move(make), fuses);
}

FactoryOr MakeByteLevel(const JsonFields& fields) {
  return MakeFactory(
      [](bool fused) { return fused ? NewBufferedStep(NewByteLevelStep()) : NewByteLevelStep(); }, true);
}

FactoryOr MakeByteFallback(const JsonFields& fields) {
  return MakeFactory(
      [](bool fused) { return fused ? NewBufferedStep(NewByteFallbackStep()) : NewByteFallbackStep(); });
}

FactoryOr MakeFuse(const JsonFields& fields) {
  return MakeFactory(
      [](bool fused) { return NewMapStep([](std::string piece, int64_t index) { return piece; }); }, true);
}

FactoryOr MakeMetaspace(const JsonFields& fields) {
  COHORT_ASSIGN_OR_RETURN(const std::string replacement, fields.StringOr("replacement", "\u2581"));
  if (CountChars(replacement) != 1) return fields.Error("\"replacement\" must be one character");
  COHORT_ASSIGN_OR_RETURN(const bool prefix, fields.BoolOr("add_prefix_space", true));
  COHORT_ASSIGN_OR_RETURN(const std::string scheme,
                          fields.StringOr("prepend_scheme", prefix ? "always" : "never"));
  const bool drop_first = scheme != "never";  // what was prepended to the first word
  return MakeFactory([replacement, drop_first](bool fused) {
    auto step = NewMapStep([replacement, drop_first](std::string piece, int64_t index) {
      return ReplaceAll(piece, replacement, index == 0 && drop_first ? "" : " ");
    });
    return fused ? NewBufferedStep(std::move(step)) : std::move(step);
  });
}

FactoryOr MakeReplace(const JsonFields& fields) {
  COHORT_ASSIGN_OR_RETURN(TextPattern pattern,
                          TextPattern::FromJson(fields.Find("pattern"), fields.where() + ".pattern"));
  COHORT_ASSIGN_OR_RETURN(const std::string content, fields.String("content"));
  return MakeFactory([pattern = std::move(pattern), content](bool fused) {
    auto step = NewMapStep([pattern, content](std::string piece, int64_t index) {
      absl::StatusOr<std::string> replaced = pattern.Replace(piece, content);
      return replaced.ok() ? *std::move(replaced)
                           : piece;  // a pattern that runs out of stack matches nothing
    });
    return fused && !pattern.is_single_char() ? NewBufferedStep(std::move(step)) : std::move(step);
  });
}

FactoryOr MakeStrip(const JsonFields& fields) {
  COHORT_ASSIGN_OR_RETURN(const std::string content, fields.String("content"));
  if (CountChars(content) != 1) return fields.Error("\"content\" must be one character");
  COHORT_ASSIGN_OR_RETURN(const int64_t start, fields.Int("start", 0, INT32_MAX));
  COHORT_ASSIGN_OR_RETURN(const int64_t stop, fields.Int("stop", 0, INT32_MAX));
  return MakeFactory([content, start, stop](bool fused) {
    if (fused && stop == 0) return NewStripStreamStep(content, start);
    auto step = NewMapStep([content, start, stop](std::string piece, int64_t index) {
      absl::string_view rest = piece;
      for (int64_t i = 0; i < start && absl::ConsumePrefix(&rest, content); ++i) {
      }
      for (int64_t i = 0; i < stop && absl::ConsumeSuffix(&rest, content); ++i) {
      }
      return std::string(rest);
    });
    return fused ? NewBufferedStep(std::move(step)) : std::move(step);
  });
}

struct DecoderType {
  const char* name;
  FactoryOr (*make)(const JsonFields& fields);
};
constexpr DecoderType kDecoderTypes[] = {
    {"ByteLevel", MakeByteLevel}, {"ByteFallback", MakeByteFallback}, {"Fuse", MakeFuse},
    {"Metaspace", MakeMetaspace}, {"Replace", MakeReplace},           {"Strip", MakeStrip},
};

absl::Status AddFactories(const json& value, const std::string& where, int depth,
                          std::vector<FactoryPtr>* factories) {
  COHORT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(value, where));
  COHORT_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type == "Sequence") {
    if (depth >= tokenizer_policy::kMaxComponentDepth) return fields.Error("sequences are nested too deeply");
    COHORT_ASSIGN_OR_RETURN(const json* children, fields.Array("decoders"));
    for (size_t i = 0; i < children->size(); ++i) {
      COHORT_RETURN_IF_ERROR(
          AddFactories((*children)[i], absl::StrCat(where, ".decoders[", i, "]"), depth + 1, factories));
    }
    return absl::OkStatus();
  }
  for (const DecoderType& candidate : kDecoderTypes) {
    if (type != candidate.name) continue;
    COHORT_ASSIGN_OR_RETURN(FactoryPtr factory, candidate.make(fields));
    factories->push_back(std::move(factory));
    return absl::OkStatus();
  }
  return fields.Error(absl::StrCat("decoder type \"", type, "\" is not supported"));
}

// Sends pieces through the steps from `first` on and returns the text that comes out of the last.
std::string RunFrom(const std::vector<std::unique_ptr<DecoderStep>>& steps, size_t first,
                    std::vector<std::string> pieces) {
  for (size_t i = first; i < steps.size(); ++i) {
    std::vector<std::string> next;
    for (std::string& piece : pieces) steps[i]->Push(std::move(piece), &next);
    pieces = std::move(next);
  }
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  return text;
}

}  // namespace

absl::StatusOr<TokenDecoder> TokenDecoder::FromJson(const json* value, const std::string& where) {
  TokenDecoder decoder;
  if (value == nullptr) {
    decoder.factories_.push_back(MakeFactory([](bool fused) {
      return NewMapStep(
          [](std::string piece, int64_t index) { return index == 0 ? piece : absl::StrCat(" ", piece); });
    }));
  } else {
    COHORT_RETURN_IF_ERROR(AddFactories(*value, where, 0, &decoder.factories_));
  }
  return decoder;
}

TokenDecoder::Chain TokenDecoder::NewChain() const {
  Chain chain;
  bool fused = false;
  for (const auto& factory : factories_) {
    chain.steps_.push_back(factory->Make(fused));
    fused = fused || factory->fuses();
  }
  return chain;
}

std::string TokenDecoder::Chain::Push(absl::string_view token) {
  return RunFrom(steps_, 0, {std::string(token)});
}

std::string TokenDecoder::Chain::Finish() {
  std::string text;
  for (size_t i = 0; i < steps_.size(); ++i) {
    std::vector<std::string> held_back;
    steps_[i]->Finish(&held_back);
    text += RunFrom(steps_, i + 1, std::move(held_back));
  }
  return text;
}

}  // namespace cohort::runtime
