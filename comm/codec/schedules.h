// The schedules of collectives with a codec: one algorithm an operation.
#pragma once

#include "absl/types/span.h"
#include "comm/algorithms/algorithm.h"

namespace cohort::comm {

// One row for each operation that can have a codec. The simulator's tests iterate over it.
absl::Span<const Algorithm> QuantizedAlgorithms();

// The row of the call's operation; sets the size of its pieces.
const Algorithm& SelectQuantized(Collective& collective);

}  // namespace cohort::comm
