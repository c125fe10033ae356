// Counts the memory of tensors from when it is taken until nobody holds it any more.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "runtime/tensor.h"

namespace cohort::parallel {

enum class StateKind : uint8_t { kParameters, kGradients, kMasters };

// One thread.
class MemoryCounter {
 public:
  // An uninitialised flat tensor that is counted as long as it or a view of it lives.
  runtime::Tensor Empty(runtime::Device& device, int64_t elements, DataType dtype, StateKind kind);

  int64_t bytes() const { return counts_->now; }
  int64_t bytes(StateKind kind) const { return counts_->of[static_cast<size_t>(kind)]; }
  int64_t peak() const { return counts_->peak; }
  void ResetPeak() { counts_->peak = counts_->now; }

 private:
  struct Counts {
    std::array<int64_t, 3> of = {};
    int64_t now = 0, peak = 0;

    void Add(StateKind kind, int64_t bytes);
  };
  std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
};

}  // namespace cohort::parallel
