// The innermost loops of packing: two nested levels of equal runs.
#pragma once

#include <cstddef>

#include "comm/datatype/datatype.h"

namespace cohort::comm {

// Moves outer.count * inner.count runs of `run` bytes between `strided`, where they lie apart, and `dense`, where they
// follow each other. Runs that overlap are written in order.
using MoveRuns = void (*)(const StrideLevel& outer, const StrideLevel& inner, size_t run, std::byte* strided,
                          std::byte* dense);

// The loop for runs of this length, so many of them in all, on this processor.
MoveRuns ChooseMove(bool pack, size_t run, size_t num_runs);

// Those of AVX2 and of AVX-512; null where what needs less is as good. `near`: all lines fit the first cache; `ahead`:
// they fit none.
MoveRuns ChooseAvx2(bool pack, size_t run, bool ahead);
MoveRuns ChooseAvx512(bool pack, size_t run, bool near, bool ahead);

}  // namespace cohort::comm
