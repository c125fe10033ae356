// Pairwise all-to-all(-v): at distance d a rank sends to rank + d and hears from rank - d, so that at any
// time every rank is read by about one other.
#include "comm/algorithms/team.h"

namespace cohort::comm::algorithms {

Schedule PairwiseAllToAll(const Collective& c) {
  const std::vector<size_t> out = Offsets(c.counts);
  const std::vector<size_t> in = Offsets(c.recv_counts);
  ScheduleBuilder builder(out.back(), in.back());
  const auto hosts = Hosts(c);
  Turns turns(*hosts, c.rank);
  for (int distance = 1; distance < c.size; ++distance) {
    const int to = Modulo(c.rank + distance, c.size);
    const int from = Modulo(c.rank - distance, c.size);
    turns.Note(to, builder.Send(to, 0, {Buffer::kInput, out[to], c.counts[to]}, {turns.Before(to)}));
    builder.Recv(from, 0, {Buffer::kOutput, in[from], c.recv_counts[from]});
  }
  // The own part last: it keeps nobody waiting.
  builder.Copy({Buffer::kInput, out[c.rank], c.counts[c.rank]},
               {Buffer::kOutput, in[c.rank], c.counts[c.rank]});
  return std::move(builder).Build();
}

}  // namespace cohort::comm::algorithms
