// What the simulator checks of a schedule by itself, and what an operation starts from and promises.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "comm/operation.h"
#include "comm/schedule.h"
#include "comm/symbolic.h"

namespace cohort::comm {

// The buffers of a rank.
struct SymbolicRank {
  SymbolicBuffer buffers[kNumBuffers];
  SymbolicBuffer& operator[](Buffer buffer) { return buffers[static_cast<size_t>(buffer)]; }
  const SymbolicBuffer& operator[](Buffer buffer) const { return buffers[static_cast<size_t>(buffer)]; }
};

// An error names two steps that touch the same elements in no order.
absl::Status CheckOrder(const Schedule& schedule);

// Fills the buffers of a rank with what it brings.
void FillInputs(const Collective& collective, SymbolicRank* rank);

// Whether the output of rank `rank` is what the operation promises.
absl::Status CheckOutput(absl::Span<const Collective> collectives, int rank, const SymbolicRank& contents);

// That two ranks hold the same bits in the first `count` elements of their outputs: every sum was made in the
// same order.
absl::Status CheckSameBits(const SymbolicRank& first, const SymbolicRank& other, size_t count);

}  // namespace cohort::comm
