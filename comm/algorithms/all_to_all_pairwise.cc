// Pairwise all-to-all(-v): at distance d a rank sends to rank + d and hears from rank - d, so that at any
// time every rank is read by about one other. Between hosts, small blocks go in turns; large ones in pieces, paced by what
// comes in, so that no rank runs ahead of the others and shares a link with those behind while its own idles:
// - Ranks that have a link of their own take turns as well: a turn waits for what the one before has brought, but for the
//   last pieces, or all links would idle between turns.
// - Ranks that share the link of their host send to all at once, each piece after the one two before has come from
//   the other side: whoever waits for the processor leaves the link to another.
// Measured at 1 Gbit/s, 16 MB, Reno, in parts of what frames leave of the rate: on four hosts of one rank 0.98 in turns
// and 0.88 at once, on four of two 0.79 to 0.91 in turns and 0.93 to 0.96 at once.
#include <initializer_list>
#include <vector>

#include "comm/algorithms/policy.h"
#include "comm/algorithms/team.h"

namespace cohort::comm::algorithms {

Schedule PairwiseAllToAll(const Collective& c) {
  const std::vector<size_t> out = Offsets(c.counts);
  const std::vector<size_t> in = Offsets(c.recv_counts);
  ScheduleBuilder builder(out.back(), in.back());
  const auto hosts = Hosts(c);
  const bool alone = hosts->most_on_a_host() == 1;
  Turns turns(*hosts, c.rank);
  StepId brought = kNoStep;  // what the turn before has brought
  for (int distance = 1; distance < c.size; ++distance) {
    const int to = Modulo(c.rank + distance, c.size);
    const int from = Modulo(c.rank - distance, c.size);
    const auto pieces_of = [&](int peer, size_t count) {
      return hosts->SameHost(c.rank, peer) ? 1 : NumPieces(c, count);
    };
    const size_t pieces_out = pieces_of(to, c.counts[to]), pieces_in = pieces_of(from, c.recv_counts[from]);
    std::vector<StepId> came;
    for (size_t piece = 0; piece < pieces_in; ++piece) {
      const Range part = Part(c.recv_counts[from], pieces_in, piece);
      came.push_back(builder.Recv(from, static_cast<uint32_t>(piece),
                                  {Buffer::kOutput, in[from] + part.begin, part.count}));
    }
    const StepId turn = turns.Before(to);
    for (size_t piece = 0; piece < pieces_out; ++piece) {
      const bool paced = piece >= policy::kPiecesUnderWay && piece - policy::kPiecesUnderWay < pieces_in;
      const StepId pace = paced ? came[piece - policy::kPiecesUnderWay] : kNoStep;
      const Range part = Part(c.counts[to], pieces_out, piece);
      const Slice slice{Buffer::kInput, out[to] + part.begin, part.count};
      const auto send = [&](std::initializer_list<StepId> after) {
        return builder.Send(to, static_cast<uint32_t>(piece), slice, after);
      };
      if (pieces_out > 1 && !alone) {
        send({pace});
      } else {
        turns.Note(to, send({turn, pieces_out > 1 ? brought : kNoStep}));
      }
    }
    if (pieces_in > policy::kPiecesUnderWay) brought = came[pieces_in - 1 - policy::kPiecesUnderWay];
  }
  // The own part last: it keeps nobody waiting.
  builder.Copy({Buffer::kInput, out[c.rank], c.counts[c.rank]},
               {Buffer::kOutput, in[c.rank], c.counts[c.rank]});
  return std::move(builder).Build();
}

}  // namespace cohort::comm::algorithms
