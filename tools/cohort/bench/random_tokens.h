// Batches of random tokens, all sequences of one length: what a step costs does not depend on what they say.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "parallel/batch_source.h"
#include "runtime/device/device.h"

namespace cohort::tools {

class RandomTokens final : public parallel::BatchSource {
 public:
  RandomTokens(int64_t sequence, int64_t vocabulary, runtime::Device& device = runtime::CpuDevice())
      : sequence_(sequence), vocabulary_(vocabulary), device_(device) {}

  absl::StatusOr<parallel::Samples> Training(int64_t step, int64_t begin, int64_t count) override;
  int64_t held_out() const override { return 0; }
  absl::StatusOr<parallel::Samples> HeldOut(int64_t begin, int64_t count) override;

 private:
  const int64_t sequence_, vocabulary_;
  runtime::Device& device_;
};

}  // namespace cohort::tools
