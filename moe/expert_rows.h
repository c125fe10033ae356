// Rows that a rank's experts compute together.
#pragma once

#include <cstdint>

#include "runtime/tensor.h"

namespace cohort::moe {

// Rows [begin, end) of those that a rank's experts got, sorted by expert.
struct ExpertRows {
  int64_t begin = 0, end = 0;
  runtime::Tensor offsets = {};  // kI32 [local experts + 1], from `begin` on
};

}  // namespace cohort::moe
