// Limits of datatypes, and where the loops that pack them change.
#pragma once

#include <cstddef>

namespace cohort::comm::policy {

// Nested strides of a datatype in canonical form, beside its runs, and blocks of one.
inline constexpr size_t kDatatypeLevels = 8;
inline constexpr size_t kDatatypeBlocks = 1 << 20;
// Runs from this size on are left to memcpy.
inline constexpr size_t kDatatypeLongRun = 512;
// Layouts whose cache lines take at most so many bytes are near: they are packed from the first cache. Those of more
// than the second number are far: their lines are asked for so many runs ahead.
inline constexpr size_t kDatatypeNearBytes = 24 << 10;
inline constexpr size_t kDatatypeFarBytes = 2 << 20;
inline constexpr size_t kDatatypePrefetchRuns = 64;
// What packing and copying in place cost is measured at these lengths of runs, on so many runs at most, in so many
// bytes, as the shortest of so many times.
inline constexpr size_t kDatatypeMeasuredRuns[] = {8, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10};
inline constexpr size_t kDatatypeMeasuredMostRuns = 1024;
inline constexpr size_t kDatatypeMeasuredBytes = 512 << 10;
inline constexpr int kDatatypeMeasuredTurns = 5;
// Memory for packed messages that a group keeps for the next ones: so many pieces, and so many bytes of each at most.
inline constexpr size_t kStagingPieces = 8;
inline constexpr size_t kStagingBytes = 16 << 20;

}  // namespace cohort::comm::policy
