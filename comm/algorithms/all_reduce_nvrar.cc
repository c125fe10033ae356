// Hierarchical all-reduce of the fewest rounds across hosts, as NVRAR does it: a reduce-scatter inside every
// host, for each lane recursive doubling across hosts, an all-gather inside. n/G bytes cross in each of log2
// H rounds; for two hosts that is also the fewest bytes. Any number of hosts, with any numbers of ranks. Both
// partners of an exchange make the same sum of two numbers, so all ranks hold the same bits.
#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {

Schedule NvrarAllReduce(const Collective& c) {
  Flow flow(c.in_place ? 0 : c.count, c.count);
  enum Stage { kReduceInside, kAcross, kGatherInside };
  const size_t pieces = NumPieces(c, c.count);
  for (size_t piece = 0; piece < pieces; ++piece) {
    const Range range = Part(c.count, pieces, piece);
    const Slice input = Input(c, range.begin, range.count);
    const Slice output{Buffer::kOutput, range.begin, range.count};
    const Lanes lanes(c, range.count);
    const Team local = lanes.Local();
    const Cuts lane_cuts = EqualCuts(range.count, lanes.num_lanes());
    const Cuts local_cuts = lanes.LocalCuts(lane_cuts);
    const Slice own = Member(output, local_cuts, local.place);
    // The exchanges end in the output; where the sum inside the host must be for that depends on their
    // number.
    const int sums = NumDoublingSums(lanes.Across(0));
    const Slice spare = sums > 0 ? flow.Scratch(own.count) : own;
    flow.Enter(kReduceInside);
    Slice start = sums % 2 == 0 ? own : spare;
    if (local.size() == 1 && !c.in_place) {
      start = input;
    } else {
      DirectReduceScatter(flow, local, local_cuts, input, start);
    }
    flow.Enter(kAcross);
    const Range owned = lanes.Own();
    for (size_t lane = owned.begin; lane < owned.begin + owned.count; ++lane) {
      const size_t from = lane_cuts[lane] - lane_cuts[owned.begin];
      const size_t count = lane_cuts[lane + 1] - lane_cuts[lane];
      RecursiveDoublingSum(flow, lanes.Across(static_cast<int>(lane)), start.Part(from, count),
                           own.Part(from, count), spare.Part(from, count));
    }
    flow.Enter(kGatherInside);
    DirectAllGather(flow, local, Slices(output, local_cuts), own);
  }
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
