// Reduce-scatter by leaders, for small parts: the first rank of a host sums what its ranks bring, the first ones
// exchange the sums for each other's hosts, and hand the parts out. One message for every ordered pair of hosts, and
// two for every other rank.
#include "comm/algorithms/blocks.h"
#include "comm/algorithms/runs.h"

namespace cohort::comm::algorithms {

Schedule LeadersReduceScatter(const Collective& c) {
  const Cuts offsets = Offsets(c.counts);
  Flow flow(offsets.back(), c.counts[c.rank]);
  const Slice input{Buffer::kInput, 0, offsets.back()};
  const Slice output{Buffer::kOutput, 0, c.counts[c.rank]};
  const auto hosts = Hosts(c);
  const int host = hosts->host_of(c.rank), leader = hosts->ranks_on(host)[0];
  if (leader != c.rank) {
    flow.Send(leader, input);
    flow.Recv(leader, output);
    return std::move(flow).Build();
  }
  const auto local = hosts->ranks_on(host);
  Slice sums = input;
  const Slice work = flow.Scratch(offsets.back());
  for (const int rank : local.subspan(1)) {
    flow.RecvReduce(rank, sums, work);
    sums = work;
  }
  const auto mine = [&](int rank) { return Member(sums, offsets, rank); };
  for (int distance = 1; distance < hosts->num_hosts(); ++distance) {
    const int to = Modulo(host + distance, hosts->num_hosts());
    const int leader_to = hosts->ranks_on(to)[0];
    ForRuns(hosts->ranks_on(to), mine, [&](const Slice& run) { flow.Send(leader_to, run); });
  }
  for (int distance = 1; distance < hosts->num_hosts(); ++distance) {
    const int leader_from = hosts->ranks_on(Modulo(host - distance, hosts->num_hosts()))[0];
    ForRuns(local, mine, [&](const Slice& run) {
      flow.RecvReduce(leader_from, run, work.Part(run.offset - sums.offset, run.count));
    });
    sums = work;
  }
  for (const int rank : local.subspan(1)) flow.Send(rank, mine(rank));
  flow.Copy(mine(c.rank), output);
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
