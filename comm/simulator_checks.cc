#include "comm/simulator_checks.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/tokens/routes.h"

namespace cohort::comm {
namespace {

struct Access {
  Slice slice;
  StepId step;
  bool writes;
};

size_t Before(absl::Span<const size_t> counts, int rank) {
  return std::accumulate(counts.begin(), counts.begin() + rank, size_t{0});
}

Terms AllRanks(int size, size_t origin) {
  Terms terms;
  for (int rank = 0; rank < size; ++rank) terms.push_back({rank, origin, 1});
  return terms;
}

// Whether the first `count` elements of the output of rank `rank` are as promised.
absl::Status Compare(const SymbolicBuffer& promised, size_t count, int rank, const SymbolicRank& contents) {
  COHORT_ASSIGN_OR_RETURN(const auto expected, promised.Read(0, count));
  const auto got = contents[Buffer::kOutput].Read(0, count);
  if (!got.ok())
    return absl::InternalError(absl::StrFormat("rank %d: output %s", rank, got.status().message()));
  // Compare piece by piece: the runs may be cut differently.
  size_t i = 0, j = 0;
  for (size_t at = 0; at < count;) {
    const auto& x = expected[i];
    const auto& y = (*got)[j];
    const size_t end = std::min(x.offset + x.count, y.offset + y.count);
    Terms want = x.At(), have = y.At();
    for (Term& term : want) term.origin += at - x.offset;
    for (Term& term : have) term.origin += at - y.offset;
    if (want != have) {
      return absl::InternalError(absl::StrFormat("rank %d: output element %d is %s, not %s", rank, at,
                                                 Describe(have), Describe(want)));
    }
    at = end;
    if (x.offset + x.count == end) ++i;
    if (y.offset + y.count == end) ++j;
  }
  return absl::OkStatus();
}

// The row of each token that has `rank` among its destinations, by source.
size_t PromiseDispatch(absl::Span<const Collective> collectives, int rank, SymbolicBuffer* promised) {
  size_t at = 0;
  for (const Collective& source : collectives) {
    const RankLists& lists = source.tokens->own;
    for (size_t t = 0; t < lists.size(); ++t) {
      if (!std::binary_search(lists[t].begin(), lists[t].end(), rank)) continue;
      promised->Define(at, source.count, {{source.rank, t * source.count, 1}});
      at += source.count;
    }
  }
  return at;
}

// Row t is the sum of the rows which the destinations of token t have for it: there they lie by source, in the order of
// its tokens.
absl::Status CheckCombine(absl::Span<const Collective> collectives, int rank, const SymbolicRank& contents) {
  const Collective& c = collectives[rank];
  const RankLists& lists = c.tokens->own;
  std::vector<size_t> next(collectives.size());
  for (size_t other = 0; other < collectives.size(); ++other) {
    next[other] = Before(collectives[other].tokens->received, rank) * c.count;
  }
  for (size_t t = 0; t < lists.size(); ++t) {
    Terms terms;
    for (const int32_t destination : lists[t]) {
      terms.push_back({destination, next[destination], 1});
      next[destination] += c.count;
    }
    if (terms.empty()) continue;
    SymbolicBuffer promised;
    promised.Define(0, c.count, terms);
    SymbolicRank row;
    COHORT_ASSIGN_OR_RETURN(auto runs, contents[Buffer::kOutput].Read(t * c.count, c.count));
    row[Buffer::kOutput].Write(0, std::move(runs));
    COHORT_RETURN_IF_ERROR(Compare(promised, c.count, rank, row));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckOrder(const Schedule& schedule) {
  const size_t num_steps = schedule.steps.size();
  // reach[i]: the steps that are over before step i begins, as a bit set.
  const size_t words = (num_steps + 63) / 64;
  std::vector<uint64_t> reach(num_steps * words, 0);
  for (size_t i = 0; i < num_steps; ++i) {
    for (const StepId id : schedule.After(static_cast<StepId>(i))) {
      for (size_t w = 0; w < words; ++w) reach[i * words + w] |= reach[id * words + w];
      reach[i * words + id / 64] |= uint64_t{1} << (id % 64);
    }
  }
  std::vector<Access> accesses;
  for (size_t i = 0; i < num_steps; ++i) {
    const Step& step = schedule.steps[i];
    const auto id = static_cast<StepId>(i);
    if (step.kind != StepKind::kRecv && step.source.count > 0) accesses.push_back({step.source, id, false});
    if (step.kind != StepKind::kSend && step.destination.count > 0)
      accesses.push_back({step.destination, id, true});
  }
  std::sort(accesses.begin(), accesses.end(), [](const Access& a, const Access& b) {
    return a.slice.buffer != b.slice.buffer ? a.slice.buffer < b.slice.buffer
                                            : a.slice.offset < b.slice.offset;
  });
  for (size_t a = 0; a < accesses.size(); ++a) {
    const Access& x = accesses[a];
    for (size_t b = a + 1; b < accesses.size(); ++b) {
      const Access& y = accesses[b];
      if (y.slice.buffer != x.slice.buffer || y.slice.offset >= x.slice.offset + x.slice.count) break;
      if (x.step == y.step || (!x.writes && !y.writes)) continue;
      const StepId early = std::min(x.step, y.step), late = std::max(x.step, y.step);
      if ((reach[late * words + early / 64] >> (early % 64) & 1) != 0) continue;
      return absl::InternalError(absl::StrFormat(
          "steps %d and %d touch element %d of buffer %d, one of them writes, and nothing orders them", early,
          late, y.slice.offset, static_cast<int>(y.slice.buffer)));
    }
  }
  return absl::OkStatus();
}

void FillInputs(const Collective& c, SymbolicRank* rank) {
  const size_t total = TotalCount(c);
  switch (c.operation) {
    case Operation::kAllReduce:
    case Operation::kReduce:
      (*rank)[c.in_place ? Buffer::kOutput : Buffer::kInput].Define(0, total, {{c.rank, 0, 1}});
      return;
    case Operation::kReduceScatter:
    case Operation::kAllToAll:
    case Operation::kAllToAllV:
    case Operation::kTokenDispatch:
    case Operation::kTokenCombine:
      (*rank)[Buffer::kInput].Define(0, total, {{c.rank, 0, 1}});
      return;
    case Operation::kAllGather:
    case Operation::kGather:
      (*rank)[c.in_place ? Buffer::kOutput : Buffer::kInput].Define(c.in_place ? Before(c.counts, c.rank) : 0,
                                                                    c.counts[c.rank], {{c.rank, 0, 1}});
      return;
    case Operation::kBroadcast:
      if (c.rank == c.root) (*rank)[Buffer::kOutput].Define(0, total, {{c.rank, 0, 1}});
      return;
    case Operation::kScatter:
      if (c.rank == c.root) (*rank)[Buffer::kInput].Define(0, total, {{c.rank, 0, 1}});
      return;
    case Operation::kBarrier:
    case Operation::kPointToPoint:
      return;
  }
}

absl::Status CheckOutput(absl::Span<const Collective> collectives, int rank, const SymbolicRank& contents) {
  const Collective& c = collectives[rank];
  SymbolicBuffer promised;
  size_t count = 0;
  switch (c.operation) {
    case Operation::kAllReduce:
      promised.Define(0, count = c.count, AllRanks(c.size, 0));
      break;
    case Operation::kReduceScatter:
      promised.Define(0, count = c.counts[rank], AllRanks(c.size, Before(c.counts, rank)));
      break;
    case Operation::kGather:
      if (rank != c.root) break;
      [[fallthrough]];
    case Operation::kAllGather:
      for (int from = 0; from < c.size; count += c.counts[from++]) {
        promised.Define(count, c.counts[from], {{from, 0, 1}});
      }
      break;
    case Operation::kBroadcast:
      promised.Define(0, count = c.count, {{c.root, 0, 1}});
      break;
    case Operation::kReduce:
      if (rank == c.root) promised.Define(0, count = c.count, AllRanks(c.size, 0));
      break;
    case Operation::kScatter:
      if (c.in_place) break;
      promised.Define(0, count = c.counts[rank], {{c.root, Before(c.counts, rank), 1}});
      break;
    case Operation::kAllToAll:
    case Operation::kAllToAllV:
      for (int from = 0; from < c.size; count += c.recv_counts[from++]) {
        promised.Define(count, c.recv_counts[from], {{from, Before(collectives[from].counts, rank), 1}});
      }
      break;
    case Operation::kTokenDispatch:
      count = PromiseDispatch(collectives, rank, &promised);
      break;
    case Operation::kTokenCombine:
      return CheckCombine(collectives, rank, contents);
    case Operation::kBarrier:
    case Operation::kPointToPoint:
      return absl::OkStatus();
  }
  return Compare(promised, count, rank, contents);
}

absl::Status CheckSameBits(const SymbolicRank& first, const SymbolicRank& other, size_t count) {
  COHORT_ASSIGN_OR_RETURN(const auto x, first[Buffer::kOutput].Read(0, count));
  COHORT_ASSIGN_OR_RETURN(const auto y, other[Buffer::kOutput].Read(0, count));
  for (size_t i = 0, j = 0; i < x.size() && j < y.size();) {
    if (x[i].order != y[j].order) {
      return absl::InternalError(absl::StrFormat(
          "output element %d is summed in another order than on rank 0", std::max(x[i].offset, y[j].offset)));
    }
    const size_t x_end = x[i].offset + x[i].count, y_end = y[j].offset + y[j].count;
    if (x_end <= y_end) ++i;
    if (y_end <= x_end) ++j;
  }
  return absl::OkStatus();
}

}  // namespace cohort::comm
