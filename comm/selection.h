// Which algorithm an operation uses. One function, so that there is one place to look and to change.
#pragma once

#include "comm/algorithms/algorithm.h"
#include "comm/operation.h"

namespace cohort::comm {

// Fills in collective.piece where the algorithm pipelines. Depends only on what is equal on all ranks
// (operation, size, counts, type), so that all choose the same.
const Algorithm& Select(Collective& collective, size_t element_bytes);

}  // namespace cohort::comm
