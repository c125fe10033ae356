// How much of a device's memory this process may use.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace cohort::runtime {

// Bytes: a share of what is free now (policy.h), or what COHORT_CUDA_MEMORY_GB (`asked`, null where unset) says in units
// of 2^30 bytes, fractions too. InvalidArgument where that is no positive number or more than is free.
absl::StatusOr<size_t> MemoryLimit(size_t free_bytes, const char* asked);

}  // namespace cohort::runtime
