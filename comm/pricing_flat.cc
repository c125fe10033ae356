// Prices of algorithms in which all ranks are one team, and of trees from or to rank 0.
#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

#include "comm/algorithms/policy.h"
#include "comm/pricing_holdings.h"
#include "comm/pricing_rows.h"

namespace cohort::comm::pricing {

using algorithms::Part;

// ---- All ranks in one team ----

void RingOnce(Pricer& p) {
  Times times = p.clock.Start();
  const Parts parts(p.count, p.size());
  const bool sums = p.call.operation == Operation::kReduceScatter;
  p.clock.Ring({p.Everyone()}, {parts}, 1, p.Pieces(parts.Longest()),
               sums ? Clock::RingOf::kSums : Clock::RingOf::kParts, sums, &times);
}

void RingTwice(Pricer& p) {
  Times times = p.clock.Start();
  const Parts parts(p.count, p.size());
  p.clock.Ring({p.Everyone()}, {parts}, 2, p.Pieces(parts.Longest()), Clock::RingOf::kSums, false, &times);
}

void Halving(Pricer& p) {
  Times times = p.clock.Start();
  p.clock.Halving({p.Everyone()}, {Parts(p.count, p.size())}, &times);
}

void HalvingThenDoubling(Pricer& p) {
  Times times = p.clock.Start();
  const Parts parts(p.count, p.size());
  p.clock.Halving({p.Everyone()}, {parts}, &times);
  p.clock.Doubling({p.Everyone()}, {parts}, {}, &times);
}

void DoublingSum(Pricer& p) {
  Times times = p.clock.Start();
  p.clock.DoublingSum({p.Everyone()}, {p.count}, &times);
}

void AllPair(Pricer& p) {
  // A receive for each other rank, in the order of ranks, each sent to at once: the k-th receives of all ranks are those
  // that are posted next.
  std::vector<Moment> came(p.clock.ordered() ? static_cast<size_t>(p.size()) * p.size() : 0);
  if (came.empty() && p.size() > 1) {
    Times times = p.clock.Start();
    std::vector<size_t> cuts(p.size() + 1);
    for (size_t i = 0; i < cuts.size(); ++i) cuts[i] = i * p.count;
    p.clock.Pairwise({p.Everyone()}, {Parts(std::move(cuts))}, false, false, &times);
    if (p.size() > 2) {
      const Moment latest = p.clock.Latest(times);
      p.clock.Until(p.clock.After(latest, p.clock.CopyTime(p.count) * (p.size() - 1)));
    }
    return;
  }
  for (int k = 0; k + 1 < p.size(); ++k) {
    for (int rank = 0; rank < p.size(); ++rank) {
      const int from = k < rank ? k : k + 1;
      came[static_cast<size_t>(rank) * p.size() + from] = p.clock.Message(from, rank, p.count, {});
    }
  }
  // Sums are made in the order of ranks; the first is made as it comes.
  for (int rank = 0; rank < p.size() && p.size() > 1; ++rank) {
    const Moment* from = &came[static_cast<size_t>(rank) * p.size()];
    Moment sum = from[rank == 0 ? 1 : 0];
    for (int other = rank > 1 ? 1 : 2; other < p.size(); ++other) {
      sum = p.clock.Copy(rank, p.count, other == rank ? sum : p.clock.Later(sum, from[other]));
    }
  }
}

void PairwiseOwners(Pricer& p) {
  Times times = p.clock.Start();
  p.clock.Pairwise({p.Everyone()}, {Parts(p.count, p.size())}, true, true, &times);
}

// Large blocks for other hosts go in pieces (all_to_all_pairwise.cc): of ranks that are alone on their hosts in turns, each
// of which waits for all but the last pieces that the one before has brought; of others to all at once, each piece after the
// one two before has come from the other side.
void Exchange(Pricer& p) {
  const Parts parts(p.count, p.size());
  const size_t pieces = p.Pieces(parts.Longest());
  Times times = p.clock.Start();
  if (pieces == 1 || !p.clock.ordered()) {
    p.clock.Pairwise({p.Everyone()}, {parts}, true, false, &times);
    return;
  }
  p.clock.Follows(Clock::Follow::kTurns);
  const bool alone = p.hosts().most_on_a_host() == 1;
  Times turn = p.clock.Start();  // when a rank may send to another host again
  Times brought = p.clock.Start();
  for (int distance = 1; distance < p.size(); ++distance) {
    std::vector<Times> came(pieces, p.clock.Start());  // by piece, from the rank at this distance
    const Times turn_before = turn, brought_before = brought;
    for (size_t piece = 0; piece < pieces; ++piece) {
      for (int rank = 0; rank < p.size(); ++rank) {
        const int to = (rank + distance) % p.size(), from = algorithms::Modulo(rank - distance, p.size());
        const bool whole = p.hosts().SameHost(rank, to);
        if (whole && piece > 0) continue;
        const bool paced = !alone && piece >= policy::kPiecesUnderWay && !p.hosts().SameHost(rank, from);
        const size_t count = whole ? parts.At(to) : Part(parts.At(to), pieces, piece).count;
        Moment begin = paced ? came[piece - policy::kPiecesUnderWay][rank] : Moment{};
        if (alone) begin = p.clock.Later(turn_before[rank], brought_before[rank]);
        came[piece][to] = p.clock.Message(rank, to, count, begin, {}, alone ? &turn[rank] : nullptr);
      }
    }
    if (pieces > policy::kPiecesUnderWay) brought = came[pieces - 1 - policy::kPiecesUnderWay];
  }
}

void PairwiseOwn(Pricer& p) {
  Times times = p.clock.Start();
  p.clock.Pairwise({p.Everyone()}, {Parts(p.count, p.size())}, false, false, &times);
}

void Direct(Pricer& p) {
  Times times = p.clock.Start();
  const Parts parts(p.count, p.size());
  p.clock.Pairwise({p.Everyone()}, {parts}, true, true, &times);
  p.clock.Pairwise({p.Everyone()}, {parts}, false, false, &times);
}

// All-gather: before the round of distance d a rank holds d parts. Signals: nothing but the latency.
void Dissemination(Pricer& p) {
  p.clock.Follows(Clock::Follow::kRounds);
  const Parts parts(p.count, p.size());
  const bool signals = p.call.operation == Operation::kBarrier;
  Times times = p.clock.Start();
  for (int distance = 1; distance < p.size(); distance *= 2) {
    const Times before = times;
    const int number = std::min(distance, p.size() - distance);
    for (int rank = 0; rank < p.size(); ++rank) {
      const int to = algorithms::Modulo(signals ? rank + distance : rank - distance, p.size());
      const Moment came = signals ? p.clock.Signal(rank, to, before[rank], before[to])
                                  : p.clock.Message(rank, to, parts.Range(rank, number), before[rank]);
      times[to] = p.clock.Later(times[to], came);
    }
  }
}

void AllGatherRecursiveDoubling(Pricer& p) {
  p.clock.Follows(Clock::Follow::kRounds);
  const Parts parts(p.count, p.size());
  const int core = static_cast<int>(std::bit_floor(static_cast<unsigned>(p.size()))),
            folded = p.size() - core;
  const auto first = [&](int place) { return place < folded ? 2 * place : place + folded; };
  const auto rank = [&](int place) { return place < folded ? 2 * place + 1 : place + folded; };
  // By rank: places are ranks.
  Holdings held(Times(p.size(), Moment{p.clock.CopyTime(parts.Longest())}),
                std::bit_width(static_cast<unsigned>(core)));
  const auto send = [&](int from, int to, int first, int end) {
    const Moment came =
        p.clock.Message(from, to, parts.Range(first, end - first), held.Since(p.clock, from, first, end));
    held.Add(to, first, end, came);
  };
  for (int pair = 0; pair < folded; ++pair) send(2 * pair, 2 * pair + 1, 2 * pair, 2 * pair + 1);
  held.EndRound();
  for (int bit = 1; bit < core; bit *= 2) {
    for (int place = 0; place < core; ++place) {
      const int begin = place / bit * bit;
      send(rank(place), rank(place ^ bit), first(begin), first(begin + bit));
    }
    held.EndRound();
  }
  // What comes before the own part of the other one may be there before the last rounds.
  for (int pair = 0; pair < folded; ++pair) {
    const int from = 2 * pair + 1, to = 2 * pair;
    for (const auto& [begin, end] : {std::pair(0, to), std::pair(from, p.size())}) {
      p.clock.Message(from, to, parts.Range(begin, end - begin), held.Since(p.clock, from, begin, end));
    }
  }
}

// Rounds of distance 2^k: the blocks whose distance has bit k, packed before. Of these, what came in the round of bit
// j < k waits for it: the blocks whose distance has no bit between.
void BruckAllToAll(Pricer& p) {
  p.clock.Follows(Clock::Follow::kRounds);
  const size_t block = p.count / p.size();
  std::vector<Times> came;
  // Blocks that a rank copies after round j, of the distances that `with` is a bit of (0: of any).
  const auto after = [&](int j, int with) {
    size_t number = 0;
    for (int distance = with; distance < p.size(); ++distance) {
      const int lower = with == 0 ? distance : distance & (with - 1);
      const bool here = with == 0 || (distance & with) != 0;
      number += here && static_cast<int>(std::bit_width(static_cast<unsigned>(lower))) == j + 1;
    }
    return number;
  };
  for (int k = 0; (1 << k) < p.size(); ++k) {
    size_t number = 0;
    std::vector<size_t> copied;  // [0]: of the input, [j + 1]: of what came in round j
    for (int j = -1; j < k; ++j) number += copied.emplace_back(after(j, 1 << k));
    Times times = p.clock.Start();
    for (int rank = 0; rank < p.size(); ++rank) {
      const int to = (rank + (1 << k)) % p.size();
      Moment packed = p.clock.Copy(rank, copied[0] * block, {});
      for (int j = 0; j < k; ++j) {
        if (copied[j + 1] > 0)
          packed = p.clock.Later(packed, p.clock.Copy(rank, copied[j + 1] * block, came[j][rank]));
      }
      times[to] = p.clock.Message(rank, to, number * block, packed);
    }
    came.push_back(std::move(times));
  }
  for (size_t j = 0; j < came.size(); ++j) {
    const size_t number = after(static_cast<int>(j), 0);
    for (int rank = 0; rank < p.size(); ++rank)
      p.clock.Until(p.clock.Copy(rank, number * block, came[j][rank]));
  }
}

// ---- Trees from or to rank 0 ----

void TreeDown(Pricer& p) {
  Times times = p.clock.Start();
  Down(
      p, p.Everyone(), [&](int, int) { return p.count; }, &times);
}
void TreeUp(Pricer& p) {
  Times times = p.clock.Start();
  Up(
      p, p.Everyone(), true, [&](int, int) { return p.count; }, &times);
}
size_t Subtree(const Pricer& p, const Parts& parts, int child, int bit) {
  return parts.Range(child, std::min(bit, p.size() - child));
}
void TreeGather(Pricer& p) {
  const Parts parts(p.count, p.size());
  Times times = p.clock.Start();
  for (int rank = 0; rank < p.size(); rank += 2) times[rank] = {p.clock.CopyTime(parts.At(rank))};
  Up(
      p, p.Everyone(), false, [&](int child, int bit) { return Subtree(p, parts, child, bit); }, &times);
}
void TreeScatter(Pricer& p) {
  const Parts parts(p.count, p.size());
  Times times = p.clock.Start();
  Down(
      p, p.Everyone(), [&](int child, int bit) { return Subtree(p, parts, child, bit); }, &times);
}
void ScatterAllGather(Pricer& p) {
  const Parts parts(p.count, p.size());
  Times times = p.clock.Start();
  Down(
      p, p.Everyone(), [&](int child, int bit) { return Subtree(p, parts, child, bit); }, &times);
  p.clock.Doubling({p.Everyone()}, {parts}, {}, &times);
}
void HalvingGather(Pricer& p) {
  const Parts parts(p.count, p.size());
  Times times = p.clock.Start();
  p.clock.Halving({p.Everyone()}, {parts}, &times);
  Up(
      p, p.Everyone(), false, [&](int child, int bit) { return Subtree(p, parts, child, bit); }, &times);
}

void ToRoot(Pricer& p) {
  const bool sums = p.call.operation == Operation::kReduce;
  const Parts parts(p.count, p.size());
  Moment now;
  for (int rank = 1; rank < p.size(); ++rank) {
    now = p.clock.Later(now,
                        p.clock.Message(rank, 0, sums ? p.count : parts.At(rank), {}, sums ? now : Moment{}));
  }
}
void FromRoot(Pricer& p) {
  const Parts parts(p.count, p.size());
  for (int rank = 1; rank < p.size(); ++rank) p.clock.Message(0, rank, parts.At(rank), {});
}

void Chain(Pricer& p) {
  const size_t pieces = p.Pieces(p.count);
  Times times = p.clock.Start();
  for (size_t piece = 0; piece < pieces; ++piece) {
    times[0] = {};
    for (int rank = 0; rank + 1 < p.size(); ++rank) {
      times[rank + 1] = p.clock.Message(rank, rank + 1, Part(p.count, pieces, piece).count, times[rank]);
    }
  }
}

// Up and down two trees, half the data on each: the first of all_reduce_double_tree.cc and its mirror image.
void DoubleTree(Pricer& p) {
  const int size = p.size();
  const auto parent_of = [&](int place) {
    const int bit = place & -place, up = place - bit;
    return (up | (bit << 1)) < size ? up | (bit << 1) : up;
  };
  const auto rank_at = [&](int tree, int place) {
    if (tree == 0) return place;
    return size % 2 == 0 ? size - 1 - place : algorithms::Modulo(place - 1, size);
  };
  // By depth, the deepest first.
  std::vector<int> depth(size, 0), order;
  for (int place = 1; place < size; ++place) {
    for (int at = place; at != 0; at = parent_of(at)) ++depth[place];
    order.push_back(place);
  }
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return depth[a] > depth[b]; });
  const size_t pieces = p.Pieces(Part(p.count, 2, 0).count);
  std::vector<Times> sums(2 * pieces, p.clock.Start());
  for (size_t piece = 0; piece < pieces; ++piece) {
    for (int tree = 0; tree < 2; ++tree) {
      const size_t count = Part(Part(p.count, 2, tree).count, pieces, piece).count;
      Times& times = sums[2 * piece + tree];
      for (const int place : order) {
        const int from = rank_at(tree, place), to = rank_at(tree, parent_of(place));
        times[to] = p.clock.Later(times[to], p.clock.Message(from, to, count, times[from], times[to]));
      }
    }
  }
  for (size_t piece = 0; piece < pieces; ++piece) {
    for (int tree = 0; tree < 2; ++tree) {
      const size_t count = Part(Part(p.count, 2, tree).count, pieces, piece).count;
      Times& times = sums[2 * piece + tree];
      for (auto at = order.rbegin(); at != order.rend(); ++at) {
        const int from = rank_at(tree, parent_of(*at)), to = rank_at(tree, *at);
        times[to] = p.clock.Later(times[to], p.clock.Message(from, to, count, times[from]));
      }
    }
  }
}

}  // namespace cohort::comm::pricing
