// Hierarchical all-to-all(-v): one message for each ordered pair of hosts (HetuMoE, Nie et al., 2022): what the ranks
// of a host have for the ranks of another is gathered on one of them, crosses, and is scattered there. G*G messages of
// a pair of hosts become one, G*G times as large. Hosts may hold different numbers of ranks, and their ranks
// share the work: other hosts take turns on them, and a rank that gathers for a pair scatters for another.
//
// What goes from rank a to rank b must be known to the ranks that pass it on. Without the matrix of an
// all-to-all-v it is not, and ranks exchange pairwise.
#include "comm/algorithms/flow.h"
#include "comm/algorithms/team.h"

namespace cohort::comm::algorithms {
namespace {

// What goes from the ranks of one host to those of another.
class HostPair {
 public:
  HostPair(const Collective& c, const HostMap& hosts, int from, int to)
      : c_(c), senders_(hosts.ranks_on(from)), receivers_(hosts.ranks_on(to)) {
    // Hosts take turns by distance. Half a host on, so that where hosts are few, not one rank has both ways.
    const int turn = Modulo(to - from, hosts.num_hosts()) - 1;
    const int num_senders = static_cast<int>(senders_.size()),
              num_receivers = static_cast<int>(receivers_.size());
    gatherer_ = senders_[turn % num_senders];
    scatterer_ = receivers_[(turn + num_receivers / 2) % num_receivers];
  }

  absl::Span<const int> senders() const { return senders_; }
  absl::Span<const int> receivers() const { return receivers_; }
  int gatherer() const { return gatherer_; }
  int scatterer() const { return scatterer_; }

  size_t Count(int a, int b) const {
    return c_.matrix == nullptr ? c_.counts[0] : (*c_.matrix)[static_cast<size_t>(a) * c_.size + b];
  }
  // All that `a` sends, and all that `b` gets.
  size_t From(int a) const {
    size_t count = 0;
    for (const int b : receivers_) count += Count(a, b);
    return count;
  }
  size_t To(int b) const {
    size_t count = 0;
    for (const int a : senders_) count += Count(a, b);
    return count;
  }
  size_t Total() const {
    size_t count = 0;
    for (const int a : senders_) count += From(a);
    return count;
  }

 private:
  const Collective& c_;
  absl::Span<const int> senders_, receivers_;
  int gatherer_ = 0, scatterer_ = 0;
};

class HierarchicalExchange {
 public:
  explicit HierarchicalExchange(const Collective& c)
      : c_(c),
        hosts_(Hosts(c)),
        out_(Offsets(c.counts)),
        in_(Offsets(c.recv_counts)),
        flow_(out_.back(), in_.back()) {}

  Schedule Make() && {
    const int host = hosts_->host_of(c_.rank), num_hosts = hosts_->num_hosts();
    // First what crosses, then what does not, so that the links begin early.
    for (int d = 1; d < num_hosts; ++d) Gather({c_, *hosts_, host, Modulo(host + d, num_hosts)});
    WithinHost();
    for (int d = 1; d < num_hosts; ++d) Scatter({c_, *hosts_, Modulo(host - d, num_hosts), host});
    return std::move(flow_).Build();
  }

 private:
  Slice Out(int to) const { return {Buffer::kInput, out_[to], c_.counts[to]}; }
  Slice In(int from) const { return {Buffer::kOutput, in_[from], c_.recv_counts[from]}; }

  // What goes to `ranks` as few slices: neighbours as one.
  template <typename SliceOf, typename Visit>
  static void ForJoined(absl::Span<const int> ranks, const SliceOf& slice_of, const Visit& visit) {
    Slice joined;
    for (const int rank : ranks) {
      const Slice slice = slice_of(rank);
      if (joined.count > 0 && slice.offset == joined.offset + joined.count) {
        joined.count += slice.count;
        continue;
      }
      if (joined.count > 0) visit(joined);
      joined = slice;
    }
    if (joined.count > 0) visit(joined);
  }

  // One slice of all, which is packed if it is in several pieces.
  template <typename SliceOf>
  Slice Packed(absl::Span<const int> ranks, const SliceOf& slice_of) {
    int pieces = 0;
    Slice whole;
    size_t total = 0;
    ForJoined(ranks, slice_of, [&](const Slice& slice) {
      ++pieces;
      whole = slice;
      total += slice.count;
    });
    if (pieces <= 1) return whole;
    whole = flow_.Scratch(total);
    size_t at = 0;
    ForJoined(ranks, slice_of, [&](const Slice& slice) {
      flow_.Copy(slice, whole.Part(at, slice.count));
      at += slice.count;
    });
    return whole;
  }

  // What a rank brings, by destination, becomes by destination what the ranks bring.
  void Gather(const HostPair& pair) {
    const auto out = [&](int to) { return Out(to); };
    if (pair.gatherer() != c_.rank) {
      flow_.Send(pair.gatherer(), Packed(pair.receivers(), out));
      return;
    }
    const Slice all = flow_.Scratch(pair.Total());
    for (const int a : pair.senders()) {
      const Slice came = a == c_.rank ? Slice{} : flow_.Scratch(pair.From(a));
      if (a != c_.rank) flow_.Recv(a, came);
      size_t from = 0, to = 0;
      for (const int b : pair.receivers()) {
        const size_t count = pair.Count(a, b);
        size_t before = to;  // ranks before `a` come first
        for (const int other : pair.senders()) {
          if (other == a) break;
          before += pair.Count(other, b);
        }
        flow_.Copy(a == c_.rank ? Out(b) : came.Part(from, count), all.Part(before, count));
        from += count;
        to += pair.To(b);
      }
    }
    flow_.Send(pair.scatterer(), all);
  }

  void Scatter(const HostPair& pair) {
    const auto in = [&](int from) { return In(from); };
    Slice own;  // what this rank gets of the pair
    if (pair.scatterer() == c_.rank) {
      const Slice all = flow_.Scratch(pair.Total());
      flow_.Recv(pair.gatherer(), all);
      size_t at = 0;
      for (const int b : pair.receivers()) {
        const Slice part = all.Part(at, pair.To(b));
        if (b == c_.rank) own = part;
        if (b != c_.rank) flow_.Send(b, part);
        at += part.count;
      }
    } else {
      int pieces = 0;
      ForJoined(pair.senders(), in, [&](const Slice& slice) {
        ++pieces;
        own = slice;
      });
      if (pieces > 1) own = flow_.Scratch(pair.To(c_.rank));
      flow_.Recv(pair.scatterer(), own);
    }
    size_t at = 0;
    ForJoined(pair.senders(), in, [&](const Slice& slice) {
      flow_.Copy(own.Part(at, slice.count), slice);
      at += slice.count;
    });
  }

  void WithinHost() {
    const auto local = hosts_->ranks_on(hosts_->host_of(c_.rank));
    const int ranks = static_cast<int>(local.size()), place = hosts_->local_rank(c_.rank);
    for (int distance = 1; distance < ranks; ++distance) {
      const int to = local[Modulo(place + distance, ranks)], from = local[Modulo(place - distance, ranks)];
      flow_.Send(to, Out(to));
      flow_.Recv(from, In(from));
    }
    flow_.Copy(Out(c_.rank), In(c_.rank));
  }

  const Collective& c_;
  const std::shared_ptr<const HostMap> hosts_;
  const std::vector<size_t> out_, in_;
  Flow flow_;
};

}  // namespace

Schedule HierarchicalAllToAll(const Collective& c) {
  if (c.operation == Operation::kAllToAllV && c.matrix == nullptr) return PairwiseAllToAll(c);
  return HierarchicalExchange(c).Make();
}

}  // namespace cohort::comm::algorithms
