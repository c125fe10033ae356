// Where a model that is spread over ranks gets its part of each batch.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/model/batch.h"

namespace cohort::parallel {

struct Samples {
  runtime::TokenBatch tokens;
  int64_t bytes = 0;  // of the text that the predicted tokens stand for; needed of held-out samples only
};

// Tokens of each sequence of a batch of whole ones.
inline std::vector<int64_t> SequenceLengths(const runtime::TokenBatch& batch) {
  std::vector<int64_t> lengths;
  for (size_t s = 1; s < batch.host_offsets.size(); ++s) {
    lengths.push_back(batch.host_offsets[s] - batch.host_offsets[s - 1]);
  }
  return lengths;
}

// Every rank has one and asks it for different samples of the same data: what a sample is depends on the step
// and its index alone. Sequences may have different lengths, and targets may be ignored. Called by one
// thread. An error on one rank fails the step on all.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  // Sequences [begin, begin + count) of the global batch of `step`; count >= 1.
  virtual absl::StatusOr<Samples> Training(int64_t step, int64_t begin, int64_t count) = 0;
  // Tokens of each of the first `count` sequences of the step's batch. As here it reads them all; whoever knows without
  // may say so.
  virtual absl::StatusOr<std::vector<int64_t>> TrainingLengths(int64_t step, int64_t count) {
    return LengthsOf(Training(step, 0, count));
  }
  // Held-out sequences there are in all; the same on every rank.
  virtual int64_t held_out() const = 0;
  virtual absl::StatusOr<Samples> HeldOut(int64_t begin, int64_t count) = 0;
  virtual absl::StatusOr<std::vector<int64_t>> HeldOutLengths(int64_t count) {
    return LengthsOf(HeldOut(0, count));
  }

 private:
  static absl::StatusOr<std::vector<int64_t>> LengthsOf(const absl::StatusOr<Samples>& samples) {
    if (!samples.ok()) return samples.status();
    return SequenceLengths(samples->tokens);
  }
};

}  // namespace cohort::parallel
