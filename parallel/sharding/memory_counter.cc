#include "parallel/sharding/memory_counter.h"

#include <algorithm>

namespace cohort::parallel {

void MemoryCounter::Counts::Add(StateKind kind, int64_t bytes) {
  of[static_cast<size_t>(kind)] += bytes;
  now += bytes;
  peak = std::max(peak, now);
}

runtime::Tensor MemoryCounter::Empty(runtime::Device& device, int64_t elements, DataType dtype,
                                     StateKind kind) {
  const runtime::Tensor memory = runtime::Tensor::Empty(device, {elements}, dtype);
  const auto bytes = static_cast<int64_t>(memory.bytes());
  counts_->Add(kind, bytes);
  // The tensor handed out owns this, and this owns the memory.
  std::shared_ptr<void> owner(memory.raw(),
                              [memory, counts = counts_, kind, bytes](void*) { counts->Add(kind, -bytes); });
  return runtime::Tensor::Wrap(device, std::move(owner), memory.raw(), {elements}, dtype);
}

}  // namespace cohort::parallel
