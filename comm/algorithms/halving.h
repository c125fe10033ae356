// Who sends what to whom where a buffer that is cut among the members of a team is halved round by round, and doubled
// backwards: for the algorithms and for their prices.
#pragma once

#include <bit>
#include <vector>

namespace cohort::comm::algorithms {

// Of a team of p members, rounds 1, 2, …; halving runs them up, doubling down.
//
// Where p is a power of two, partners whose places differ in one bit exchange (Thakur, Rabenseifner and Gropp, 2005,
// section 4.2): what each sends lies in one piece, and two processes that share a processor change places once a round.
// Else round a circle (Träff, "Optimal, Non-pipelined Reduce-scatter and Allreduce Algorithms", 2024): with S the skip of
// the round before (p at first) and s = ceil(S/2), a member halving sends what it has for the members s .. S-1 places on
// to the one s places on, whose own place and those up to S-s-1 on they are. What is sent and what is added to never
// overlap.
class Rounds {
 public:
  explicit Rounds(int size) : paired_(std::has_single_bit(static_cast<unsigned>(size))), skips_{size} {
    while (skips_.back() > 1) skips_.push_back((skips_.back() + 1) / 2);
  }

  int last() const { return static_cast<int>(skips_.size()) - 1; }
  int skip(int round) const { return skips_[round]; }

  // Parts of so many members from `first` on, round the team, and where `place` sends them. Doubling goes the other way
  // between the same ranks: it sends to whom halving hears from, and the parts to which that adds.
  struct Sent {
    int to, first, number;
  };
  Sent Halving(int place, int round) const {
    const int skip = skips_[round], number = skips_[round - 1] - skip;
    if (paired_) return {place ^ skip, (place ^ skip) / skip * skip, number};
    return {(place + skip) % skips_[0], place + skip, number};
  }
  Sent Doubling(int place, int round) const {
    const int skip = skips_[round], number = skips_[round - 1] - skip;
    if (paired_) return {place ^ skip, place / skip * skip, number};
    return {(place - skip + skips_[0]) % skips_[0], place, number};
  }

 private:
  const bool paired_;
  std::vector<int> skips_;  // p, ceil(p/2), ceil(p/4), …, 1
};

}  // namespace cohort::comm::algorithms
