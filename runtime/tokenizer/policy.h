// Limits of the tokenizer, in one place.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cohort::runtime::tokenizer_policy {

// Ids at or above this are refused when a tokenizer.json is loaded: a broken id must not allocate gigabytes.
inline constexpr int64_t kMaxVocabularySize = int64_t{1} << 24;
// Components (a Sequence in a Sequence ...) nested deeper than this are refused.
inline constexpr int kMaxComponentDepth = 16;
// Words of up to this many symbols are merged by scanning for the best pair, longer ones with a heap.
inline constexpr size_t kMaxSymbolsToScan = 24;
// The word cache: its shards (each with a lock), the entries each holds, and the longest word it keeps.
inline constexpr size_t kCacheShards = 16;
inline constexpr size_t kCacheEntriesPerShard = 4096;
inline constexpr size_t kCacheMaxWordBytes = 256;
// Stack of the compiled regular expressions, per thread.
inline constexpr size_t kRegexStackStartBytes = size_t{64} << 10;
inline constexpr size_t kRegexStackMaxBytes = size_t{8} << 20;
// The trainer merges no pair that is seen less often than this.
inline constexpr int64_t kMinPairCount = 2;

}  // namespace cohort::runtime::tokenizer_policy
