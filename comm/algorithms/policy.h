// How algorithms cut what they send. Equal on all ranks, or their schedules do not match.
#pragma once

#include <cstddef>

namespace cohort::comm::policy {

// Pipelined algorithms cut what they pass on into pieces of at least this size, and into at most so many.
inline constexpr size_t kPieceBytes = 256 << 10;
inline constexpr size_t kMaxPieces = 8;
// Pieces that may be in one stage of a pipeline at a time: with one, links between four hosts of two ranks at 1 Gbit/s
// were idle a quarter of the time in recursive doubling of 2 MB (48 ms; with two 38; the bytes alone take 35).
inline constexpr size_t kPiecesInStage = 2;
// Of a pairwise exchange in pieces, those that may be under way beside those that are waited for.
inline constexpr size_t kPiecesUnderWay = 2;
// Hierarchical all-reduces do not cut a buffer into lanes of fewer elements than this.
inline constexpr size_t kLaneElements = 256;

}  // namespace cohort::comm::policy
