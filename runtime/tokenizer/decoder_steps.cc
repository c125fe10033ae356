#include "runtime/tokenizer/decoder_steps.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "runtime/tokenizer/unicode.h"

namespace cohort::runtime {
namespace {

using Pieces = std::vector<std::string>;

class MapStep : public DecoderStep {
 public:
  explicit MapStep(std::function<std::string(std::string, int64_t)> map) : map_(std::move(map)) {}
  void Push(std::string piece, Pieces* out) override { out->push_back(map_(std::move(piece), index_++)); }
  void Finish(Pieces* out) override {}

 private:
  std::function<std::string(std::string, int64_t)> map_;
  int64_t index_ = 0;
};

class BufferedStep : public DecoderStep {
 public:
  explicit BufferedStep(DecoderStepPtr step) : step_(std::move(step)) {}
  void Push(std::string piece, Pieces* out) override { whole_ += piece; }
  void Finish(Pieces* out) override {
    step_->Push(std::move(whole_), out);
    step_->Finish(out);
  }

 private:
  DecoderStepPtr step_;
  std::string whole_;
};

class ByteLevelStep : public DecoderStep {
 public:
  void Push(std::string piece, Pieces* out) override {
    AppendBytes(piece);
    std::string text;
    size_t done = 0;
    while (done < bytes_.size()) {
      const DecodedChar decoded = DecodeUtf8(absl::string_view(bytes_).substr(done));
      if (decoded.incomplete) break;
      AppendUtf8(decoded.code_point, &text);
      done += decoded.bytes;
    }
    bytes_.erase(0, done);
    if (!text.empty()) out->push_back(std::move(text));
  }
  void Finish(Pieces* out) override {
    if (!bytes_.empty()) out->push_back(ReplaceInvalidUtf8(bytes_));
    bytes_.clear();
  }

 private:
  // A token with a character outside of the alphabet (an added token with a space, say) stands for itself.
  void AppendBytes(absl::string_view piece) {
    const size_t before = bytes_.size();
    for (size_t i = 0; i < piece.size();) {
      const DecodedChar decoded = DecodeUtf8(piece.substr(i));
      const int byte = ByteOfByteLevelChar(decoded.code_point);
      if (byte < 0) {
        bytes_.resize(before);
        bytes_.append(piece.data(), piece.size());
        return;
      }
      bytes_ += static_cast<char>(byte);
      i += decoded.bytes;
    }
  }

  std::string bytes_;  // the beginning of a character
};

class ByteFallbackStep : public DecoderStep {
 public:
  void Push(std::string piece, Pieces* out) override {
    uint32_t byte = 0;
    if (piece.size() == 6 && absl::StartsWith(piece, "<0x") && piece[5] == '>' &&
        absl::SimpleHexAtoi(absl::string_view(piece).substr(3, 2), &byte) && byte < 256) {
      run_ += static_cast<char>(byte);
      return;
    }
    Finish(out);
    out->push_back(std::move(piece));
  }
  void Finish(Pieces* out) override {
    if (run_.empty()) return;
    if (FindInvalidUtf8(run_) == std::string::npos) {
      out->push_back(run_);
    } else {
      for (size_t i = 0; i < run_.size(); ++i) out->push_back("\uFFFD");
    }
    run_.clear();
  }

 private:
  std::string run_;
};

class StripStreamStep : public DecoderStep {
 public:
  StripStreamStep(std::string content, int64_t count) : content_(std::move(content)), left_(count) {}
  void Push(std::string piece, Pieces* out) override {
    absl::string_view rest = piece;
    for (; left_ > 0 && absl::ConsumePrefix(&rest, content_); --left_) {
    }
    if (rest.empty()) return;
    left_ = 0;
    out->emplace_back(rest);
  }
  void Finish(Pieces* out) override {}

 private:
  std::string content_;
  int64_t left_;
};

}  // namespace

DecoderStepPtr NewMapStep(std::function<std::string(std::string, int64_t)> map) {
  return std::make_unique<MapStep>(std::move(map));
}
DecoderStepPtr NewBufferedStep(DecoderStepPtr step) {
  return std::make_unique<BufferedStep>(std::move(step));
}
DecoderStepPtr NewByteLevelStep() { return std::make_unique<ByteLevelStep>(); }
DecoderStepPtr NewByteFallbackStep() { return std::make_unique<ByteFallbackStep>(); }
DecoderStepPtr NewStripStreamStep(std::string content, int64_t count) {
  return std::make_unique<StripStreamStep>(std::move(content), count);
}

std::string ReplaceAll(absl::string_view text, absl::string_view from, absl::string_view to) {
  return absl::StrReplaceAll(text, {{from, to}});
}

}  // namespace cohort::runtime
