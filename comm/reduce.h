// Elementwise reductions of every data type, in the widest vectors that the processor has.
#pragma once

#include <cstddef>

#include "comm/communicator.h"
#include "comm/data_type.h"

namespace cohort::comm {

// out[i] = a[i] (op) b[i], i < count. `out` may be `a` or `b`, but not overlap them otherwise. Pointers
// are aligned to the element. bf16 and f16 are computed in f32 and rounded to nearest even. Integers
// wrap around. Every op is commutative to the last bit, also for zeros of different sign; min and max
// give NaN if either is one.
using ReduceFunction = void (*)(const std::byte* a, const std::byte* b, std::byte* out, size_t count);

ReduceFunction FindReduce(DataType dtype, ReduceOp op);

}  // namespace cohort::comm
