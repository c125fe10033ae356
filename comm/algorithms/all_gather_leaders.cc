// All-gather by leaders, for small parts: the ranks of a host give theirs to its first one, the first ones exchange
// what their hosts have, and hand everything out. One message for every ordered pair of hosts, and two for every other
// rank.
#include "comm/algorithms/blocks.h"
#include "comm/algorithms/runs.h"

namespace cohort::comm::algorithms {

Schedule LeadersAllGather(const Collective& c) {
  const Cuts offsets = Offsets(c.counts);
  Flow flow(c.in_place ? 0 : c.counts[c.rank], offsets.back());
  const Slice output{Buffer::kOutput, 0, offsets.back()};
  const Slice home = Member(output, offsets, c.rank);
  const Slice own = c.in_place ? home : Slice{Buffer::kInput, 0, c.counts[c.rank]};
  const auto hosts = Hosts(c);
  const int host = hosts->host_of(c.rank), leader = hosts->ranks_on(host)[0];
  if (leader != c.rank) {
    flow.Send(leader, own);
    flow.Recv(leader, output);  // the own part comes back with the rest: one message
    return std::move(flow).Build();
  }
  const auto part = [&](int rank) { return Member(output, offsets, rank); };
  flow.Copy(own, home);
  for (const int rank : hosts->ranks_on(host).subspan(1)) flow.Recv(rank, part(rank));
  for (int distance = 1; distance < hosts->num_hosts(); ++distance) {
    const int to = Modulo(host + distance, hosts->num_hosts()),
              from = Modulo(host - distance, hosts->num_hosts());
    const int leader_to = hosts->ranks_on(to)[0], leader_from = hosts->ranks_on(from)[0];
    ForRuns(hosts->ranks_on(host), part, [&](const Slice& run) { flow.Send(leader_to, run); });
    ForRuns(hosts->ranks_on(from), part, [&](const Slice& run) { flow.Recv(leader_from, run); });
  }
  for (const int rank : hosts->ranks_on(host).subspan(1)) flow.Send(rank, output);
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
