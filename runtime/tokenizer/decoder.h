// Decoders: from the texts of tokens back to text, token by token.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cohort::runtime {

// A chain of steps, each of which maps a list of pieces to a list of pieces; the text is their concatenation.
// Each step is a transducer, so that decoding as tokens arrive and decoding at once are the same code and
// give the same text.
class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  // Takes a piece and appends the pieces that are now certain.
  virtual void Push(std::string piece, std::vector<std::string>* out) = 0;
  // The input has ended: appends what was held back.
  virtual void Finish(std::vector<std::string>* out) = 0;
};

// What a tokenizer.json says of decoding. Immutable and thread-safe; makes chains, which are not.
class TokenDecoder {
 public:
  class Chain {
   public:
    // Each returns the text that is now certain.
    std::string Push(absl::string_view token);
    std::string Finish();

   private:
    friend class TokenDecoder;
    std::vector<std::unique_ptr<DecoderStep>> steps_;
  };

  // Makes a fresh step. The factory of each step holds its parameters.
  class Factory {
   public:
    virtual ~Factory() = default;
    // `fused`: everything that arrives is chunks of one and the same piece.
    virtual std::unique_ptr<DecoderStep> Make(bool fused) const = 0;
    virtual bool fuses() const { return false; }  // everything it emits is one piece
  };

  // `value` is the "decoder" of a tokenizer.json; null means tokens with a space between them.
  static absl::StatusOr<TokenDecoder> FromJson(const nlohmann::json* value, const std::string& where);

  Chain NewChain() const;

 private:
  std::vector<std::shared_ptr<const Factory>> factories_;
};

}  // namespace cohort::runtime
