// Limits and sizes of data preparation and loading, in one place.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cohort::runtime::data_policy {

// Tokens in one tokens-*.bin.
inline constexpr int64_t kTokensPerShard = int64_t{1} << 28;
// Documents are encoded in batches of about this much text, which threads share.
inline constexpr int64_t kEncodeBatchBytes = int64_t{4} << 20;
// A file in a folder counts as binary, and is passed over, where this many of its first bytes hold a NUL.
inline constexpr size_t kBinaryProbeBytes = 8192;
// With fewer documents than this, validation text is the tail of every document rather than whole documents.
inline constexpr int64_t kMinDocumentsToSplitWhole = 100;
// Output is buffered up to this size.
inline constexpr size_t kWriteBufferBytes = size_t{1} << 20;
// Rounds of the Feistel network that orders the samples. Four are a pseudo-random permutation (Luby and
// Rackoff 1988); more cost little and help small domains.
inline constexpr int kFeistelRounds = 6;

}  // namespace cohort::runtime::data_policy
