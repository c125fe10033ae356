// Trains a byte-level BPE tokenizer on text and writes it as Hugging Face files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cohort::runtime {

struct BpeTrainerOptions {
  // All tokens: the special ones, the 256 bytes, and merges.
  int64_t vocab_size = 32000;
  // These get the first ids, in this order. The first is BOS and EOS, as in GPT-2.
  std::vector<std::string> special_tokens = {"<|endoftext|>"};
};

// What training gives: the tokens by id (in the byte-level alphabet), and the merges by rank.
struct TrainedBpe {
  std::vector<std::string> special_tokens;
  std::vector<std::string> tokens;
  std::vector<std::pair<int32_t, int32_t>> merges;

  // Writes tokenizer.json and tokenizer_config.json into `folder`, which is made where it does not exist.
  // Each file is replaced at once: one of an earlier run is never left half-written.
  absl::Status Write(const std::string& folder) const;
};

// Feed texts, then Train. The result depends on the words and their counts alone, so the order of texts does
// not matter. Not thread-safe.
class BpeTrainer {
 public:
  // InvalidArgument where the size has no room for the bytes and the special tokens, or one of these is empty
  // or there twice.
  static absl::StatusOr<std::unique_ptr<BpeTrainer>> Create(BpeTrainerOptions options);
  ~BpeTrainer();

  // Counts the words of a document. Special tokens written in it are left out. InvalidArgument, naming the
  // byte, where it is not UTF-8.
  absl::Status Feed(absl::string_view text);

  // Merges the most frequent pair (the smallest ids among equals) until the vocabulary is full.
  // Where the text has too few repeated pairs for that, the vocabulary is smaller.
  // FailedPrecondition where no text was fed.
  absl::StatusOr<TrainedBpe> Train() const;

 private:
  struct State;
  BpeTrainer();
  std::unique_ptr<State> state_;
};

}  // namespace cohort::runtime
