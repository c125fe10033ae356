// The limits of tensor parallelism, in one place.
#pragma once

#include <cstdint>

namespace cohort::parallel::tensor_policy {

// Matrix products go in tiles of so many rows (16 rows of AMX in bf16, vectors of rows in f32, and a few of
// them at a time): a half of a batch that is no multiple wastes a part of its last one.
inline constexpr int64_t kTileRows = 32;
// Rows of a half below which its products are so much slower by row, and its messages so short, that
// splitting loses.
inline constexpr int64_t kLeastRows = 128;

}  // namespace cohort::parallel::tensor_policy
