// Hierarchical all-reduce of the fewest bytes: a reduce-scatter inside every host by reading, for each lane a
// reduce-scatter and an all-gather across hosts, and an all-gather inside by reading. Of n bytes every host
// sends 2(H-1)/H n to other hosts, in 2 ceil(log2 H) rounds, whatever the numbers of ranks on them. Pieces go
// through the levels independently, so that work inside a host hides behind the links. Where hosts are few, they
// exchange directly instead: as many bytes, 2 rounds, of H-1 messages each.
#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {

namespace {

enum class Across { kHalving, kDirect };

Schedule Make(const Collective& c, Across how) {
  Flow flow(c.in_place ? 0 : c.count, c.count);
  enum Stage { kReduceInside, kAcross, kBack, kGatherInside };
  const size_t pieces = NumPieces(c, c.count);
  for (size_t piece = 0; piece < pieces; ++piece) {
    const Range range = Part(c.count, pieces, piece);
    const Slice output{Buffer::kOutput, range.begin, range.count};
    const Lanes lanes(c, range.count);
    const Team local = lanes.Local();
    const Cuts lane_cuts = EqualCuts(range.count, lanes.num_lanes());
    const Cuts local_cuts = lanes.LocalCuts(lane_cuts);
    flow.Enter(kReduceInside);
    Slice sums = Input(c, range.begin, range.count);
    if (local.size() > 1 || lanes.num_hosts() == 1) {
      DirectReduceScatter(flow, local, local_cuts, sums, Member(output, local_cuts, local.place));
      sums = output;
    }
    flow.Enter(kAcross);
    const Range own = lanes.Own();
    // Of the lanes of this rank: what each has of its sums.
    const auto for_lanes = [&](const auto& visit) {
      for (size_t lane = own.begin; lane < own.begin + own.count && lanes.num_hosts() > 1; ++lane) {
        const Team across = lanes.Across(static_cast<int>(lane));
        const Slice source = Member(sums, lane_cuts, static_cast<int>(lane));
        const Slice work = Member(output, lane_cuts, static_cast<int>(lane));
        visit(across, EqualCuts(work.count, across.size()), source, work);
      }
    };
    for_lanes([&](const Team& across, const Cuts& cuts, Slice source, Slice work) {
      const Slice part = Member(work, cuts, across.place);
      if (how == Across::kHalving) {
        HalvingReduceScatter(flow, across, cuts, source, work, part);
      } else {
        DirectReduceScatter(flow, across, cuts, source, part, &lanes.hosts());
      }
    });
    // The next pieces need not wait for this one's way back.
    flow.Enter(kBack);
    for_lanes([&](const Team& across, const Cuts& cuts, Slice, Slice work) {
      const Slice part = Member(work, cuts, across.place);
      if (how == Across::kHalving) {
        DoublingAllGather(flow, across, Slices(work, cuts), part);
      } else {
        DirectAllGather(flow, across, Slices(work, cuts), part, &lanes.hosts());
      }
    });
    flow.Enter(kGatherInside);
    DirectAllGather(flow, local, Slices(output, local_cuts), Member(output, local_cuts, local.place));
  }
  return std::move(flow).Build();
}

}  // namespace

Schedule HierarchicalAllReduce(const Collective& c) { return Make(c, Across::kHalving); }
Schedule HierarchicalDirectAllReduce(const Collective& c) { return Make(c, Across::kDirect); }

}  // namespace cohort::comm::algorithms
