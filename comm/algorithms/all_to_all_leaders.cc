// All-to-all by leaders, as HetuMoE has it (Nie et al., 2022), for small parts: the ranks of a host give all they have
// to its first one, the first ones exchange one message for every ordered pair of hosts, and hand out what is for their
// ranks. Two messages for every other rank, where all_to_all_hierarchical.cc has as many as the host has ranks and two
// more; but everything goes through one rank of a host.
#include <vector>

#include "comm/algorithms/flow.h"
#include "comm/algorithms/runs.h"
#include "comm/algorithms/team.h"

namespace cohort::comm::algorithms {

Schedule LeadersAllToAll(const Collective& c) {
  const size_t count = c.counts[0], row = count * c.size;
  Flow flow(row, row);
  const Slice input{Buffer::kInput, 0, row}, output{Buffer::kOutput, 0, row};
  const auto block = [&](const Slice& of, size_t index) { return of.Part(index * count, count); };
  const auto hosts = Hosts(c);
  const int host = hosts->host_of(c.rank), num_hosts = hosts->num_hosts();
  const auto local = hosts->ranks_on(host);
  if (local[0] != c.rank) {
    flow.Send(local[0], input);
    flow.Recv(local[0], output);
    return std::move(flow).Build();
  }
  // By place on this host: what a rank has for everybody, and what it gets.
  std::vector<Slice> brought, gets;
  for (const int rank : local) {
    brought.push_back(rank == c.rank ? input : flow.Scratch(row));
    gets.push_back(rank == c.rank ? output : flow.Scratch(row));
    if (rank != c.rank) flow.Recv(rank, brought.back());
  }
  // Between two hosts: by sender, then by receiver.
  for (int distance = 1; distance < num_hosts; ++distance) {
    const auto there = hosts->ranks_on(Modulo(host + distance, num_hosts));
    const Slice message = flow.Scratch(local.size() * there.size() * count);
    for (size_t place = 0; place < local.size(); ++place) {
      Slice to = message.Part(place * there.size() * count, 0);
      const auto part = [&](int rank) { return block(brought[place], rank); };
      ForRuns(there, part, [&](const Slice& run) {
        to.count = run.count;
        flow.Copy(run, to);
        to.offset += run.count;
      });
    }
    flow.Send(there[0], message);
  }
  for (size_t from = 0; from < local.size(); ++from) {
    for (size_t to = 0; to < local.size(); ++to) {
      flow.Copy(block(brought[from], local[to]), block(gets[to], local[from]));
    }
  }
  for (int distance = 1; distance < num_hosts; ++distance) {
    const auto there = hosts->ranks_on(Modulo(host - distance, num_hosts));
    const Slice message = flow.Scratch(local.size() * there.size() * count);
    flow.Recv(there[0], message);
    for (size_t from = 0; from < there.size(); ++from) {
      for (size_t to = 0; to < local.size(); ++to) {
        flow.Copy(block(message, from * local.size() + to), block(gets[to], there[from]));
      }
    }
  }
  for (size_t place = 1; place < local.size(); ++place) flow.Send(local[place], gets[place]);
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
