// Where a model that is spread over ranks gets its part of each batch.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "runtime/model/batch.h"

namespace cohort::parallel {

struct Samples {
  runtime::TokenBatch tokens;
  int64_t bytes = 0;  // of the text that the predicted tokens stand for; needed of held-out samples only
};

// Every rank has one and asks it for different samples of the same data: what a sample is depends on the step
// and its index alone. Sequences may have different lengths, and targets may be ignored. Called by one
// thread. An error on one rank fails the step on all.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  // Sequences [begin, begin + count) of the global batch of `step`; count >= 1.
  virtual absl::StatusOr<Samples> Training(int64_t step, int64_t begin, int64_t count) = 0;
  // Held-out sequences there are in all; the same on every rank.
  virtual int64_t held_out() const = 0;
  virtual absl::StatusOr<Samples> HeldOut(int64_t begin, int64_t count) = 0;
};

}  // namespace cohort::parallel
