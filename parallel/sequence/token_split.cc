#include "parallel/sequence/token_split.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::parallel {
namespace {

// The runs of one sequence, by rank. order: ranks, the first of which get one token more where the length does not
// divide.
std::vector<std::vector<PositionRun>> Divide(SplitKind kind, int64_t length, const std::vector<int>& order) {
  const auto n = static_cast<int64_t>(order.size());
  const int64_t extra = length % n;
  std::vector<int64_t> count(n);
  for (int64_t i = 0; i < n; ++i) count[order[i]] = length / n + (i < extra ? 1 : 0);
  std::vector<std::vector<PositionRun>> runs(n);
  const auto add = [&](int64_t rank, const PositionRun& run) {
    if (run.count > 0) runs[rank].push_back(run);
  };
  int64_t next = 0;
  switch (kind) {
    case SplitKind::kContiguous:
      for (int64_t rank = 0; rank < n; ++rank) {
        add(rank, {next, count[rank], 1});
        next += count[rank];
      }
      break;
    case SplitKind::kZigzag:  // fronts outwards in, then backs inwards out
      for (int64_t i = 0; i < n; ++i) {
        add(order[i], {next, (count[order[i]] + 1) / 2, 1});
        next += (count[order[i]] + 1) / 2;
      }
      for (int64_t i = n - 1; i >= 0; --i) {
        const int64_t back = count[order[i]] / 2;
        add(order[i], {next, back, 1});
        next += back;
      }
      break;
    case SplitKind::kStriped:
      for (int64_t i = 0; i < n; ++i) add(order[i], {i, count[order[i]], n});
      break;
  }
  return runs;
}

}  // namespace

const char* Name(SplitKind kind) {
  switch (kind) {
#define COHORT_X(enumerator, name, meaning) \
  case SplitKind::enumerator:               \
    return name;
    COHORT_TOKEN_SPLITS(COHORT_X)
#undef COHORT_X
  }
  return "?";
}

absl::StatusOr<SplitKind> ParseSplitKind(absl::string_view name) {
  std::string known;
#define COHORT_X(enumerator, kind_name, meaning)       \
  if (name == kind_name) return SplitKind::enumerator; \
  absl::StrAppend(&known, known.empty() ? "" : ", ", kind_name);
  COHORT_TOKEN_SPLITS(COHORT_X)
#undef COHORT_X
  return absl::InvalidArgumentError(
      absl::StrCat("no way to split sequences is called \"", name, "\"; there are ", known));
}

int64_t VisiblePairs(const PositionRun& queries, const PositionRun& keys) {
  COHORT_CHECK(queries.stride == keys.stride, "runs of strides %ld and %ld",
               static_cast<long>(queries.stride), static_cast<long>(keys.stride));
  // Query i sees clamp(i + first, 0, count) keys.
  const int64_t apart = queries.begin - keys.begin, stride = keys.stride;
  const int64_t first = (apart >= 0 ? apart / stride : -((-apart + stride - 1) / stride)) + 1;
  const int64_t blind = std::clamp<int64_t>(1 - first, 0, queries.count);  // the first that see nothing
  const int64_t full = std::clamp<int64_t>(queries.count + first - keys.count, 0, queries.count);
  const int64_t partly = std::max<int64_t>(0, queries.count - blind - full), from = first + blind;
  return full * keys.count + partly * from + partly * (partly - 1) / 2;
}

absl::StatusOr<TokenSplit> TokenSplit::Create(SplitKind kind, int ranks, absl::Span<const int64_t> lengths) {
  if (ranks < 1) return absl::InvalidArgumentError(absl::StrCat("sequences over ", ranks, " ranks"));
  TokenSplit split;
  split.kind_ = kind;
  split.lengths_.assign(lengths.begin(), lengths.end());
  split.tokens_.assign(ranks, 0);
  split.runs_.resize(ranks * lengths.size());
  std::vector<int64_t> pairs(ranks, 0);
  std::vector<int> order(ranks);
  std::iota(order.begin(), order.end(), 0);
  for (size_t s = 0; s < lengths.size(); ++s) {
    if (lengths[s] < 0) {
      return absl::InvalidArgumentError(absl::StrCat("sequence ", s, " has ", lengths[s], " tokens"));
    }
    split.total_ += lengths[s];
    if (split.total_ > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(absl::StrCat("the first ", s + 1, " sequences have ", split.total_,
                                                     " tokens together; a batch has at most ",
                                                     std::numeric_limits<int32_t>::max()));
    }
    // Fewest tokens first; among equals, who has seen most keys gets the places that see fewest.
    std::sort(order.begin(), order.end(), [&](int a, int b) {
      if (split.tokens_[a] != split.tokens_[b]) return split.tokens_[a] < split.tokens_[b];
      return pairs[a] != pairs[b] ? pairs[a] > pairs[b] : a < b;
    });
    auto runs = Divide(kind, lengths[s], order);
    for (int rank = 0; rank < ranks; ++rank) {
      for (const PositionRun& run : runs[rank]) {
        split.tokens_[rank] += run.count;
        for (int other = 0; other < ranks; ++other) {
          for (const PositionRun& keys : runs[other]) pairs[rank] += parallel::VisiblePairs(run, keys);
        }
      }
    }
    for (int rank = 0; rank < ranks; ++rank) {
      split.runs_[rank * lengths.size() + s] = std::move(runs[rank]);
    }
  }
  return split;
}

std::vector<int32_t> TokenSplit::Offsets(int rank) const {
  std::vector<int32_t> offsets = {0};
  for (int64_t s = 0; s < sequences(); ++s) {
    int64_t count = 0;
    for (const PositionRun& run : Runs(rank, s)) count += run.count;
    offsets.push_back(offsets.back() + static_cast<int32_t>(count));
  }
  return offsets;
}

std::vector<int32_t> TokenSplit::Positions(int rank) const {
  std::vector<int32_t> positions;
  positions.reserve(tokens_[rank]);
  for (int64_t s = 0; s < sequences(); ++s) {
    for (const PositionRun& run : Runs(rank, s)) {
      for (int64_t i = 0; i < run.count; ++i) {
        positions.push_back(static_cast<int32_t>(run.begin + i * run.stride));
      }
    }
  }
  return positions;
}

std::vector<int32_t> TokenSplit::Places(int rank) const {
  std::vector<int32_t> places = Positions(rank);
  const std::vector<int32_t> offsets = Offsets(rank);
  int64_t begin = 0;
  for (int64_t s = 0; s < sequences(); begin += lengths_[s++]) {
    for (int32_t t = offsets[s]; t < offsets[s + 1]; ++t) places[t] += static_cast<int32_t>(begin);
  }
  return places;
}

int64_t TokenSplit::VisiblePairs(int query_rank, int key_rank) const {
  int64_t pairs = 0;
  for (int64_t s = 0; s < sequences(); ++s) {
    for (const PositionRun& queries : Runs(query_rank, s)) {
      for (const PositionRun& keys : Runs(key_rank, s)) pairs += parallel::VisiblePairs(queries, keys);
    }
  }
  return pairs;
}

int64_t TokenSplit::VisiblePairs(int query_rank) const {
  int64_t pairs = 0;
  for (int rank = 0; rank < ranks(); ++rank) pairs += VisiblePairs(query_rank, rank);
  return pairs;
}

int64_t TokenSplit::VisiblePairs() const {
  int64_t pairs = 0;
  for (const int64_t length : lengths_) pairs += length * (length + 1) / 2;
  return pairs;
}

}  // namespace cohort::parallel
