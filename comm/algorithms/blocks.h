// Parts that algorithms are made of: what a team does with a buffer, as steps added to a Flow.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/types/span.h"
#include "comm/algorithms/flow.h"
#include "comm/algorithms/team.h"

namespace cohort::comm::algorithms {

// A buffer cut among the members of a team: member m's part is elements [offsets[m], offsets[m + 1]) of it.
using Cuts = std::vector<size_t>;
Cuts EqualCuts(size_t count, int parts);
inline Slice Member(const Slice& whole, const Cuts& cuts, int member) {
  return whole.Part(cuts[member], cuts[member + 1] - cuts[member]);
}

// All of these take `source`, what this rank brings for the whole buffer, and `work`, as long, where sums may
// be put. They may be the same. Own part of the sum: in `result`, which may be the own part of `work`, not
// that of `source` unless that is `work`. In a team of one it is copied there.

// Every member gets its part from all others: one message a pair, no scratch. For members on one host, who read, or
// for few hosts; `hosts`: where members are, if not all on one.
void DirectReduceScatter(Flow& flow, const Team& team, const Cuts& cuts, Slice source, Slice result,
                         const HostMap* hosts = nullptr);
// Round the ring: team-1 messages to the next member.
void RingReduceScatter(Flow& flow, const Team& team, const Cuts& cuts, Slice source, Slice work,
                       Slice result);
// In ceil(log2 team) rounds, of the fewest bytes, for any size of team (halving.h).
void HalvingReduceScatter(Flow& flow, const Team& team, const Cuts& cuts, Slice source, Slice work,
                          Slice result);

// The own part goes to all; parts[m] is where member m's belongs. Own part: at `own`, which may be elsewhere;
// it is copied to its place.
void DirectAllGather(Flow& flow, const Team& team, absl::Span<const Slice> parts, Slice own,
                     const HostMap* hosts = nullptr);
void RingAllGather(Flow& flow, const Team& team, absl::Span<const Slice> parts, Slice own);
// In ceil(log2 team) rounds: the rounds of HalvingReduceScatter backwards. Parts that lie side by side travel
// as one message.
void DoublingAllGather(Flow& flow, const Team& team, absl::Span<const Slice> parts, Slice own);

std::vector<Slice> Slices(const Slice& whole, const Cuts& cuts);

// How many sums this member makes in RecursiveDoublingSum.
int NumDoublingSums(const Team& team);
// The sum of `source` over the team, to `target`, in ceil(log2 team) exchanges of everything (and two more
// messages where the team is no power of two). Sums go through `spare` and `target` in turn, so where
// NumDoublingSums is odd `source` must not be `target`, where it is even and not 0 not `spare`.
void RecursiveDoublingSum(Flow& flow, const Team& team, Slice source, Slice target, Slice spare);

}  // namespace cohort::comm::algorithms
