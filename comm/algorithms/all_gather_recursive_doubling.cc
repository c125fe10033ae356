// Recursive-doubling all-gather: partners at distance 1, 2, 4, … exchange all they have, which lies in one
// range. Where the number of ranks is no power of two, the first ones fold in pairs: one gives its part to
// the other before, and gets everything after.
#include <algorithm>
#include <bit>

#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {

Schedule RecursiveDoublingAllGather(const Collective& c) {
  const Cuts offsets = Offsets(c.counts);
  Flow flow(c.in_place ? 0 : c.counts[c.rank], offsets.back());
  const Slice output{Buffer::kOutput, 0, offsets.back()};
  const Slice home = Member(output, offsets, c.rank);
  const Slice own = c.in_place ? home : Slice{Buffer::kInput, 0, c.counts[c.rank]};
  const int core = static_cast<int>(std::bit_floor(static_cast<unsigned>(c.size)));
  const int folded = c.size - core;
  flow.Copy(own, home);
  // The ranks of the core have places; a range of places is a range of ranks, pairs included.
  const auto first_rank = [&](int place) { return place < folded ? 2 * place : place + folded; };
  const auto rank_of = [&](int place) { return place < folded ? 2 * place + 1 : place + folded; };
  const auto range = [&](int first, int number) {
    const size_t begin = offsets[first_rank(first)], end = offsets[first_rank(first + number)];
    return output.Part(begin, end - begin);
  };
  // All that the other half of a pair has not.
  const auto others = [&](int rank, const auto& visit) {
    visit(output.Part(0, offsets[rank]));
    visit(output.Part(offsets[rank + 1], offsets.back() - offsets[rank + 1]));
  };
  if (c.rank < 2 * folded && c.rank % 2 == 0) {
    flow.Send(c.rank + 1, own);
    others(c.rank, [&](const Slice& part) { flow.Recv(c.rank + 1, part); });
    return std::move(flow).Build();
  }
  const int place = c.rank < 2 * folded ? c.rank / 2 : c.rank - folded;
  if (place < folded) flow.Recv(c.rank - 1, Member(output, offsets, c.rank - 1));
  for (int distance = 1; distance < core; distance *= 2) {
    const int partner = place ^ distance;
    const int partner_rank = rank_of(partner);
    flow.Send(partner_rank, range(place / distance * distance, distance));
    flow.Recv(partner_rank, range(partner / distance * distance, distance));
  }
  if (place < folded) {
    others(c.rank - 1, [&](const Slice& part) { flow.Send(c.rank - 1, part); });
  }
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
