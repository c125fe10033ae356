// Pairwise all-to-all(-v): at distance d a rank sends to rank + d and hears from rank - d, so that at any
// time every rank is read by about one other. Between hosts, small blocks go in turns. Large ones go in pieces, to all
// at once, each after the piece two before has come from the other side: so no connection runs ahead of the others,
// which share its links, and all of them end together.
#include <array>

#include "comm/algorithms/team.h"
#include "comm/policy.h"

namespace cohort::comm::algorithms {
namespace {

constexpr size_t kPiecesAhead = 2;

}  // namespace

Schedule PairwiseAllToAll(const Collective& c) {
  const std::vector<size_t> out = Offsets(c.counts);
  const std::vector<size_t> in = Offsets(c.recv_counts);
  ScheduleBuilder builder(out.back(), in.back());
  const auto hosts = Hosts(c);
  Turns turns(*hosts, c.rank);
  const auto pieces_of = [&](int peer, size_t count) {
    return hosts->SameHost(c.rank, peer) ? 1 : NumPieces(c, count);
  };
  for (int distance = 1; distance < c.size; ++distance) {
    const int to = Modulo(c.rank + distance, c.size);
    const int from = Modulo(c.rank - distance, c.size);
    const size_t pieces_out = pieces_of(to, c.counts[to]), pieces_in = pieces_of(from, c.recv_counts[from]);
    const auto send = [&](size_t piece, StepId after) {
      const Range part = Part(c.counts[to], pieces_out, piece);
      return builder.Send(to, static_cast<uint32_t>(piece),
                          {Buffer::kInput, out[to] + part.begin, part.count}, {after});
    };
    if (pieces_out == 1) turns.Note(to, send(0, turns.Before(to)));
    std::array<StepId, policy::kMaxPieces> came;
    for (size_t piece = 0; piece < pieces_in; ++piece) {
      const Range part = Part(c.recv_counts[from], pieces_in, piece);
      const Slice place{Buffer::kOutput, in[from] + part.begin, part.count};
      came[piece] = builder.Recv(from, static_cast<uint32_t>(piece), place);
    }
    for (size_t piece = 0; piece < pieces_out && pieces_out > 1; ++piece) {
      const bool paced = piece >= kPiecesAhead && piece - kPiecesAhead < pieces_in;
      send(piece, paced ? came[piece - kPiecesAhead] : kNoStep);
    }
  }
  // The own part last: it keeps nobody waiting.
  builder.Copy({Buffer::kInput, out[c.rank], c.counts[c.rank]},
               {Buffer::kOutput, in[c.rank], c.counts[c.rank]});
  return std::move(builder).Build();
}

}  // namespace cohort::comm::algorithms
