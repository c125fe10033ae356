// Which tokens of each sequence every rank of a context group holds. A pure value; no communication.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace cohort::parallel {

// X(enumerator, name, what a rank holds of a sequence).
#define COHORT_TOKEN_SPLITS(X)                                                                          \
  X(kContiguous, "contiguous", "one run of neighbours; later ranks see more keys (Liu et al., 2023)")   \
  X(kZigzag, "zigzag", "a run from the front and its mirror image from the back; all see equally many") \
  X(kStriped, "striped", "every n-th token; every step of a ring sees equally many (Brandon et al., 2023)")

enum class SplitKind : uint8_t {
#define COHORT_X(enumerator, name, meaning) enumerator,
  COHORT_TOKEN_SPLITS(COHORT_X)
#undef COHORT_X
};
const char* Name(SplitKind kind);
// INVALID_ARGUMENT names the kinds there are.
absl::StatusOr<SplitKind> ParseSplitKind(absl::string_view name);

// Positions begin, begin + stride, ...: `count` of them.
struct PositionRun {
  int64_t begin = 0, count = 0, stride = 1;
  bool operator==(const PositionRun&) const = default;
};

// A packed batch of sequences divided over ranks. Every token is held by exactly one of them. Whatever the lengths,
// also of sequences shorter than the number of ranks, the ranks' totals differ by one token at most: what does not
// divide goes to whoever has the fewest so far.
class TokenSplit {
 public:
  // INVALID_ARGUMENT where there is no rank, a length is negative, or the batch has 2^31 tokens or more.
  static absl::StatusOr<TokenSplit> Create(SplitKind kind, int ranks, absl::Span<const int64_t> lengths);

  SplitKind kind() const { return kind_; }
  int ranks() const { return static_cast<int>(tokens_.size()); }
  int64_t sequences() const { return static_cast<int64_t>(lengths_.size()); }
  const std::vector<int64_t>& lengths() const { return lengths_; }
  int64_t total_tokens() const { return total_; }
  // Tokens that a rank holds of all sequences.
  int64_t tokens(int rank) const { return tokens_[rank]; }

  // At most two, ascending, none of them empty.
  const std::vector<PositionRun>& Runs(int rank, int64_t sequence) const {
    return runs_[rank * lengths_.size() + sequence];
  }

  // What a rank's part of the batch looks like, in order of (sequence, position). Offsets [S + 1] of its own tokens;
  // positions [T] in the whole sequences; places [T] in the packed batch of whole sequences.
  std::vector<int32_t> Offsets(int rank) const;
  std::vector<int32_t> Positions(int rank) const;
  std::vector<int32_t> Places(int rank) const;

  // Causally visible pairs: keys of key_rank at or before a query of query_rank, over all sequences.
  int64_t VisiblePairs(int query_rank, int key_rank) const;
  // The same of one query rank with all keys: its share of the work where queries stay.
  int64_t VisiblePairs(int query_rank) const;
  // Of all: sum of s (s + 1) / 2.
  int64_t VisiblePairs() const;

 private:
  SplitKind kind_ = SplitKind::kContiguous;
  std::vector<int64_t> lengths_;
  int64_t total_ = 0;
  std::vector<int64_t> tokens_;                 // by rank
  std::vector<std::vector<PositionRun>> runs_;  // [rank][sequence]
};

// Pairs of a query of `queries` and a key of `keys` that it sees. Both runs have one stride.
int64_t VisiblePairs(const PositionRun& queries, const PositionRun& keys);

}  // namespace cohort::parallel
