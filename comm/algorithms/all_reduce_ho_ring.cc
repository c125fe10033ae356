// Hierarchical overlapping rings (HO-Ring; PaRO, Wu et al., 2023): a ring of reduce-scatter inside every
// host, for each lane a ring of all-reduce across hosts, and a ring of all-gather inside. Pieces follow each
// other through the three, so links inside and between hosts are busy at once: while the flat ring moves at
// the pace of its slowest link, and sends 2(p-1)/p n over it, the rings across send 2(H-1)/H n a host.
#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {

Schedule HoRingAllReduce(const Collective& c) {
  Flow flow(c.in_place ? 0 : c.count, c.count);
  enum Stage { kReduceInside, kAcross, kGatherInside };
  const size_t pieces = NumPieces(c, c.count);
  for (size_t piece = 0; piece < pieces; ++piece) {
    const Range range = Part(c.count, pieces, piece);
    const Slice output{Buffer::kOutput, range.begin, range.count};
    const Lanes lanes(c, range.count);
    const Team local = lanes.Local();
    const Cuts lane_cuts = EqualCuts(range.count, lanes.num_lanes());
    const Cuts local_cuts = lanes.LocalCuts(lane_cuts);
    const Slice own = Member(output, local_cuts, local.place);
    flow.Enter(kReduceInside);
    Slice sums = Input(c, range.begin, range.count);
    if (local.size() > 1 || lanes.num_hosts() == 1) {
      RingReduceScatter(flow, local, local_cuts, sums, output, own);
      sums = output;
    }
    flow.Enter(kAcross);
    const Range owned = lanes.Own();
    for (size_t lane = owned.begin; lane < owned.begin + owned.count && lanes.num_hosts() > 1; ++lane) {
      const Team across = lanes.Across(static_cast<int>(lane));
      const Slice work = Member(output, lane_cuts, static_cast<int>(lane));
      const Cuts cuts = EqualCuts(work.count, across.size());
      const Slice part = Member(work, cuts, across.place);
      RingReduceScatter(flow, across, cuts, Member(sums, lane_cuts, static_cast<int>(lane)), work, part);
      RingAllGather(flow, across, Slices(work, cuts), part);
    }
    flow.Enter(kGatherInside);
    RingAllGather(flow, local, Slices(output, local_cuts), own);
  }
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
