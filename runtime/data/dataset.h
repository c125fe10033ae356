// Prepared tokens, mapped into memory.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace cohort::runtime {

// One split of one or more prepared folders, as one sequence of tokens. Immutable and thread-safe.
class TokenDataset {
 public:
  // `folders` are what PrepareData made, `split` is "train" or "validation". InvalidArgument or DataLoss,
  // naming the file, where one is truncated, is not what its header or index says, or has another tokenizer
  // than the first.
  static absl::StatusOr<std::shared_ptr<const TokenDataset>> Open(absl::Span<const std::string> folders,
                                                                  const std::string& split);
  ~TokenDataset();

  int64_t num_tokens() const;
  int64_t num_documents() const;
  // The first token of a document, which an EOS ends. `document` is in [0, num_documents).
  int64_t DocumentBegin(int64_t document) const;
  // UTF-8 bytes of the text behind the tokens, for bits per byte.
  int64_t text_bytes() const;
  int64_t vocab_size() const;
  int32_t eos_id() const;
  const std::string& tokenizer_hash() const;
  // The tokenizer.json of the first folder.
  const std::string& tokenizer_json() const;
  // Of the tokens and their order: what a resumed run must find unchanged.
  const std::string& fingerprint() const;

  // Copies tokens [begin, begin + out.size()), which must lie within the dataset. DataLoss, naming the file,
  // for a token outside of the vocabulary.
  absl::Status Read(int64_t begin, absl::Span<int32_t> out) const;

 private:
  struct State;
  explicit TokenDataset(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

}  // namespace cohort::runtime
