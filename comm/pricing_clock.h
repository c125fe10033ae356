// When messages arrive: ranks, their links, and the patterns that algorithms are made of.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/types/span.h"
#include "comm/policy.h"
#include "comm/pricing.h"
#include "comm/pricing_graph.h"

namespace cohort::comm::pricing {

// By rank: when it has finished what it did so far.
using Times = std::vector<Moment>;
// Ranks that do something together; several teams do it at once.
using Team = std::vector<int>;
using Teams = std::vector<Team>;

// A number of elements cut into equal parts (algorithms::Part), counted round a circle.
class Parts {
 public:
  Parts(size_t total, int parts)
      : total_(total), parts_(parts), quotient_(total / parts), remainder_(total % parts) {}
  // Parts of given sizes.
  explicit Parts(std::vector<size_t> cuts)
      : total_(cuts.back()), parts_(static_cast<int>(cuts.size()) - 1), cuts_(std::move(cuts)) {}

  int number() const { return parts_; }
  size_t total() const { return total_; }
  size_t At(int part) const { return Range(part, 1); }
  size_t Longest() const;
  // Of `number` parts from `first` on.
  size_t Range(int first, int number) const;

 private:
  size_t Begin(int part) const;

  size_t total_;
  int parts_;
  size_t quotient_ = 0, remainder_ = 0;  // of parts that are equal
  std::vector<size_t> cuts_;
};

// When a link is taken. Where messages are priced as the patterns say them, not in the order of time, one that is ready
// early finds the gaps that later ones have left, as on a real link it would have gone first.
class LinkTimes {
 public:
  // The first time from `ready` on at which it is free for so long.
  double Free(double ready, double seconds) const {
    if (taken_.empty()) return std::max(ready, closed_until_);
    return FreeBetween(ready, seconds);
  }
  // `kept`: the latest so many are known one by one; what was before is not given away.
  void Take(double begin, double seconds, size_t kept) {
    if (seconds == 0) return;
    if (kept == 0) {
      closed_until_ = begin + seconds;
    } else {
      Keep(begin, seconds, kept);
    }
  }

 private:
  double FreeBetween(double ready, double seconds) const;
  void Keep(double begin, double seconds, size_t kept);
  struct Taken {
    double begin, end;
  };
  std::vector<Taken> taken_;  // ascending; neighbours that touch are one
  double closed_until_ = 0;
};

// Prices what it is told. Patterns of few messages become a graph (pricing_graph.h), which is run in the order of time;
// of more, each message is priced when it is said.
class Clock {
 public:
  // Patterns of more than `replayed` messages that repeat themselves are priced by their slowest member. A graph of at
  // most so many nodes is made where `ordered` is not 0.
  Clock(const Machine& machine, size_t element_bytes, size_t replayed, size_t ordered);

  int size() const { return size_; }
  const Machine& machine() const { return machine_; }
  Times Start() const { return Times(size_); }
  size_t replayed() const { return replayed_; }
  bool ordered() const { return ordered_ > 0; }
  // There was more than may be ordered: the price means nothing.
  bool too_many() const { return ordered() && (by_slowest_ || graph_.size() > ordered_); }

  Moment Later(Moment a, Moment b) {
    if (!ordered()) return a.at < b.at ? b : a;
    return too_many() ? a : graph_.Later(a, b);
  }
  Moment After(Moment begin, double seconds) {
    if (too_many()) return begin;
    return ordered() ? graph_.After(begin, seconds) : Moment{begin.at + seconds};
  }
  Moment Latest(absl::Span<const Moment> all);

  // When a message arrives that the sender has at `sent` and the receiver awaits from `awaited` on. Empty ones are
  // not sent, and arrive at once. Counts them. `left`, where asked for: when its last byte has left.
  Moment Message(int from, int to, size_t count, Moment sent, Moment awaited = {}, Moment* left = nullptr);
  // A message without content.
  Moment Signal(int from, int to, Moment sent, Moment awaited) {
    return Transfer(from, to, 0, sent, awaited, nullptr);
  }
  // From now on the last message that was said to come to each rank is noted there; nullptr: no more.
  void NoteLast(Times* last) { last_ = last; }
  double CopyTime(size_t count) const;
  // A copy or sum of a rank that begins then: they are made one after the other.
  Moment Copy(int rank, size_t count, Moment begin);
  // Something ends then that is no message.
  void Until(Moment moment);

  // Every member hands what came last on to the next one, until all parts have been everywhere, `rounds` times. Parts
  // travel in `pieces`, and begin at their owners, or, where sums are made, after them, so that they end there. Sums of
  // one round (`coupled`) are received into two buffers in turn, and wait until the one before is sent.
  enum class RingOf : uint8_t { kParts, kSums };
  void Ring(const Teams& teams, absl::Span<const Parts> parts, int rounds, size_t pieces, RingOf of,
            bool coupled, Times* times);
  // `arrived`, where given, hears of what comes to a rank.
  using Arrived = std::function<void(int rank, size_t count, Moment when)>;
  // Every member to every other: member m to n the size of part n (to_owner) or of part m, to other hosts in turns.
  // Where chained, a receive waits for the one before. `ready`, where given: by team and member, since when it has each
  // part; before, it has none.
  void Pairwise(const Teams& teams, absl::Span<const Parts> parts, bool to_owner, bool chained, Times* times,
                const Arrived& arrived = nullptr, const std::vector<std::vector<Times>>* ready = nullptr);
  // Rounds of halving (algorithms/halving.h), and backwards.
  void Halving(const Teams& teams, absl::Span<const Parts> parts, Times* times);
  // `places`, where given: where each part of a team begins in its buffer; those that do not lie side by side travel as
  // one message each.
  void Doubling(const Teams& teams, absl::Span<const Parts> parts,
                absl::Span<const std::vector<size_t>> places, Times* times, const Arrived& arrived = nullptr);
  // Recursive doubling of everything, with folding.
  void DoublingSum(const Teams& teams, absl::Span<const size_t> counts, Times* times);

  // Whether a message of so many elements leaves for another host in one piece.
  bool LeavesWhole(size_t count) const {
    return static_cast<double>(count) * element_bytes_ <= static_cast<double>(policy::kWholeBytes);
  }
  // How messages follow each other from now on, which tells what Machine::drift does to them: in rounds that wait for
  // the one before; in turns, where a rank has one after the other for everybody, at half of it; or in a chain of
  // pieces, not at all. Nor does it do anything to messages that leave whole, which wait for no receiver: links have them
  // early. The patterns above know it of themselves.
  enum class Follow { kChain, kTurns, kRounds };
  void Follows(Follow how) {
    stretch_ = how == Follow::kRounds ? 1 + drift_ : how == Follow::kTurns ? 1 + machine_.drift / 2 : 1;
  }
  // Halving, Doubling and DoublingSum happen so many times, to pieces of a buffer: while one waits, another moves.
  void InPieces(size_t pieces) { drift_ = machine_.drift / static_cast<double>(pieces); }

  // What was counted so far stands for `factor` times as much, which would take as many times as long.
  void Stretch(double factor);
  // The graph is run.
  Price price();

 private:
  // NUMA domain, socket, host, between hosts.
  static constexpr size_t kKept = 24;
  static constexpr int kMostRanksWithGaps = 8192;
  static constexpr int kNumLevels = 4, kBetweenHosts = 3;
  struct Hop {
    int level;
    double latency, seconds_per_byte, gap;
  };
  // How long a message takes its link, and from then on until it is there. Inside a host the bytes are copied by whoever
  // handles the message, one after the other. Between hosts the next one is handled while the link has these bytes, as far
  // as they do not wait for each other: LogGP has the longer of both, nothing in common would be the sum; measured, with
  // twelve messages in a row of two ranks at 1 Gbit/s, is what lies between (a gap of 45 us: of 4 KB, 737 us, of 16 KB,
  // 1,691; this gives 670 and 1,662). One alone takes the sum.
  struct Occupied {
    double busy, latency;
  };
  static Occupied Occupies(const Hop& hop, double bytes_take) {
    if (hop.level < kBetweenHosts) return {hop.gap + bytes_take, hop.latency};
    const double busy = std::sqrt(hop.gap * hop.gap + bytes_take * bytes_take);
    return {busy, hop.latency + hop.gap + bytes_take - busy};
  }
  const Hop& Between(Distance distance) const { return hops_[static_cast<int>(distance)]; }
  Distance DistanceOf(int from, int to) const;
  const Hop& Between(int from, int to) const { return Between(DistanceOf(from, to)); }
  size_t Link(int level, int rank) const { return level < kBetweenHosts ? rank : where_[rank].link; }
  Moment Transfer(int from, int to, size_t count, Moment sent, Moment awaited, Moment* left);
  void Count(int from, Distance distance, double messages, double count);
  void RingBySlowest(const Team& team, const Parts& parts, int rounds, size_t pieces, int sharing,
                     bool coupled, Times* times);
  void PairwiseBySlowest(const Team& team, const Parts& parts, bool to_owner, bool chained, Times* times);

  const Machine& machine_;
  const int size_;
  const double element_bytes_;
  const size_t replayed_;
  const size_t ordered_;
  const size_t kept_;  // LinkTimes; none where ranks are very many, for the time it takes
  Hop hops_[kNumDistances];
  // By rank, at hand: the divisions are made once.
  struct Where {
    int32_t host, rack, socket, numa;
    uint32_t link;  // between hosts
  };
  std::vector<Where> where_;
  const size_t links_;                                       // between hosts
  std::vector<LinkTimes> out_[kNumLevels], in_[kNumLevels];  // by level and link
  Graph graph_;
  bool by_slowest_ = false;  // a pattern was too long to be ordered
  double drift_;
  double stretch_ = 1;  // of bytes between hosts
  std::vector<double> host_bytes_;
  std::vector<double> local_free_;  // by rank: when it has made its copies; where messages are not ordered
  Times* last_ = nullptr;
  double end_ = 0;
  double factor_ = 1;
  Price price_;
};

}  // namespace cohort::comm::pricing
