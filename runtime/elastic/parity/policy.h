// The limits of parity over hosts, in one place.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cohort::runtime::elastic::parity_policy {

// A host's bytes are cut into at most so many blocks, each in a stripe of its own: more balance parity better, fewer
// are planned faster. A multiple of the usual k: then stripes of equal hosts come out even.
inline constexpr uint64_t kBlocksPerHost = 24;
// Blocks are a multiple of this, and at least as large.
inline constexpr uint64_t kLeastBlockBytes = 64 << 10;
// What is sent and encoded at once, and how many such steps a rank is ahead with sending and receiving.
inline constexpr uint64_t kPieceBytes = 1 << 20;
inline constexpr int kAhead = 4;
// k + m at most: the field has 255 elements other than zero.
inline constexpr int kMostBlocks = 255;
// Tags of the messages in the communicator that is used.
inline constexpr int kDataTag = 7100;
inline constexpr int kParityTag = 7101;
inline constexpr int kRecoveryTag = 7102;
// Hosts that an error names before "and N more".
inline constexpr size_t kListedNames = 8;

}  // namespace cohort::runtime::elastic::parity_policy
