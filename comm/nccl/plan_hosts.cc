// The hierarchical form. Inside a host, where bytes are cheap, NCCL moves; between hosts each byte crosses once for each
// host that needs it, cut into lanes over all ranks of the host, as in the hierarchical algorithms of comm/algorithms
// (Cho et al., "BlueConnect", SysML 2019, section 3).
#include <algorithm>
#include <numeric>

#include "comm/check.h"
#include "comm/nccl/plan.h"

namespace cohort::comm::nccl {

size_t HostCall::input(int host) const {
  switch (operation) {
    case Operation::kAllGather:
      return counts[host];
    case Operation::kReduceScatter:
      return std::accumulate(counts.begin(), counts.end(), size_t{0});
    case Operation::kBroadcast:
      return 0;
    default:
      return count;
  }
}

size_t HostCall::output(int host) const {
  switch (operation) {
    case Operation::kAllGather:
      return std::accumulate(counts.begin(), counts.end(), size_t{0});
    case Operation::kReduceScatter:
      return counts[host];
    case Operation::kReduce:
      return host == root ? count : 0;
    default:
      return count;
  }
}

namespace {

constexpr Place kSendAt0{Buffer::kSend, 0};

// A call as it looks from its rank's host.
class Builder {
 public:
  Builder(const Collective& call, size_t piece)
      : call_(call), hosts_(*call.hosts), piece_(std::max<size_t>(piece, 1)) {
    host_ = hosts_.host_of(call.rank);
    local_ = hosts_.local_rank(call.rank);
    local_size_ = static_cast<int>(hosts_.ranks_on(host_).size());
    lanes_ = hosts_.fewest_on_a_host();
    plan_.team = Team::kInside;
    plan_.crosses = true;
  }

  Plan Build() {
    switch (call_.operation) {
      case Operation::kAllReduce:
        AllReduce();
        break;
      case Operation::kReduce:
        Reduce();
        break;
      case Operation::kBroadcast:
        Broadcast();
        break;
      case Operation::kAllGather:
        AllGather();
        break;
      case Operation::kReduceScatter:
        ReduceScatter();
        break;
      default:
        COHORT_CHECK(false, "%s has no hierarchical plan", Name(call_.operation));
    }
    return std::move(plan_);
  }

 private:
  bool is_lane() const { return local_ < lanes_; }
  int lane_of(int rank) const { return hosts_.local_rank(rank) % lanes_; }
  // Where lane `lane`'s part of `count` elements begins.
  size_t Begin(int lane) const {
    return call_.count / lanes_ * lane + std::min<size_t>(lane, call_.count % lanes_);
  }
  size_t Share(int lane) const { return Begin(lane + 1) - Begin(lane); }
  // Every rank of the host is a lane, with the same share: NCCL's own reduce-scatter and all-gather do.
  bool even() const { return local_size_ == lanes_ && call_.count % lanes_ == 0; }

  // scratch[0 ..] of lane l = the sum of the host's parts of its share.
  void ReduceToLanes() {
    if (is_lane()) plan_.scratch = Share(local_);
    if (even()) {
      if (call_.count > 0) Before({CallKind::kReduceScatter, kSendAt0, {Buffer::kScratch, 0}, Share(0)});
      return;
    }
    for (int lane = 0; lane < lanes_; ++lane) {
      Before({CallKind::kReduce, {Buffer::kSend, Begin(lane)}, {Buffer::kScratch, 0}, Share(lane), lane});
    }
  }

  // recv of all ranks of the host has all shares, each of which its lane has.
  void GatherFromLanes() {
    if (local_size_ == 1) return;
    if (even()) {
      if (call_.count > 0)
        After({CallKind::kAllGather, {Buffer::kRecv, Begin(local_)}, {Buffer::kRecv, 0}, Share(0)});
      return;
    }
    for (int lane = 0; lane < lanes_; ++lane) {
      const Place share = {Buffer::kRecv, Begin(lane)};
      After({CallKind::kBroadcast, share, share, Share(lane), lane});
    }
  }

  void AllReduce() {
    ReduceToLanes();
    ForPieces([&](size_t at, size_t count) {
      plan_.pieces.push_back({.out = {{{Buffer::kScratch, at}, count}},
                              .call = {Operation::kAllReduce, count, {}, 0},
                              .in = {{{Buffer::kRecv, Begin(local_) + at}, count}}});
    });
    GatherFromLanes();
  }

  void Reduce() {
    ReduceToLanes();
    const int root_host = hosts_.host_of(call_.root), root_local = hosts_.local_rank(call_.root);
    const bool here = host_ == root_host, is_root = call_.rank == call_.root;
    ForPieces([&](size_t at, size_t count) {
      // A lane of the root's host passes on what comes in its scratch, whose own part has left it by then.
      const Place to = is_root ? Place{Buffer::kRecv, Begin(local_) + at} : Place{Buffer::kScratch, at};
      Piece piece{.out = {{{Buffer::kScratch, at}, count}},
                  .call = {Operation::kReduce, count, {}, root_host},
                  .in = {}};
      if (here) piece.in.push_back({to, count});
      plan_.pieces.push_back(std::move(piece));
    });
    if (!here) return;
    if (!is_root && is_lane()) After({CallKind::kSend, {Buffer::kScratch, 0}, {}, Share(local_), root_local});
    for (int lane = 0; is_root && lane < lanes_; ++lane) {
      if (lane != local_) After({CallKind::kRecv, {}, {Buffer::kRecv, Begin(lane)}, Share(lane), lane});
    }
  }

  void Broadcast() {
    const int root_host = hosts_.host_of(call_.root);
    const bool here = host_ == root_host;
    const Place whole = {Buffer::kRecv, 0};
    if (here && local_size_ > 1) {
      Before({CallKind::kBroadcast, whole, whole, call_.count, hosts_.local_rank(call_.root)});
    }
    ForPieces([&](size_t at, size_t count) {
      const Segment segment = {{Buffer::kRecv, Begin(local_) + at}, count};
      Piece piece{.out = {}, .call = {Operation::kBroadcast, count, {}, root_host}, .in = {}};
      (here ? piece.out : piece.in).push_back(segment);
      plan_.pieces.push_back(std::move(piece));
    });
    if (!here) GatherFromLanes();
  }

  void AllGather() {
    const std::vector<size_t> at = Offsets();
    // Blocks of ranks that are no lane go to one first; recv of a lane has what its host brings.
    for (const int rank : hosts_.ranks_on(host_)) {
      const size_t count = call_.counts[rank];
      if (count == 0) continue;
      const int lane = lane_of(rank);
      if (rank == call_.rank && !call_.in_place) {
        Before({.from = kSendAt0, .to = {Buffer::kRecv, at[rank]}, .count = count, .copy = true});
      }
      if (hosts_.local_rank(rank) == lane) continue;
      if (rank == call_.rank) Before({CallKind::kSend, kSendAt0, {}, count, lane});
      if (local_ == lane) {
        Before({CallKind::kRecv, {}, {Buffer::kRecv, at[rank]}, count, hosts_.local_rank(rank)});
      }
    }
    ForSlices([&](const std::vector<Slice>& slices, const std::vector<size_t>& counts) {
      Piece piece{.out = {}, .call = {Operation::kAllGather, 0, counts, 0}, .in = {}};
      size_t own = 0, all = 0;
      for (const Slice& slice : slices) {
        const Place place = {Buffer::kRecv, at[slice.rank] + slice.begin};
        if (hosts_.host_of(slice.rank) == host_) {
          piece.out.push_back({place, slice.count, own});
          own += slice.count;
        } else {
          piece.in.push_back({place, slice.count, all});
        }
        all += slice.count;
      }
      plan_.pieces.push_back(std::move(piece));
    });
    if (local_size_ == 1) return;
    for (int rank = 0; rank < call_.size; ++rank) {
      const Place block = {Buffer::kRecv, at[rank]};
      After({CallKind::kBroadcast, block, block, call_.counts[rank], lane_of(rank)});
    }
  }

  void ReduceScatter() {
    const std::vector<size_t> at = Offsets();
    // Scratch of a lane: the host's sums of the blocks that the lane carries, by rank, then what it passes on.
    std::vector<size_t> sums(call_.size, 0), passed(call_.size, 0);
    for (int rank = 0; is_lane() && rank < call_.size; ++rank) {
      if (lane_of(rank) != local_) continue;
      sums[rank] = plan_.scratch;
      plan_.scratch += call_.counts[rank];
    }
    for (const int rank : hosts_.ranks_on(host_)) {
      if (!is_lane() || lane_of(rank) != local_ || rank == call_.rank) continue;
      passed[rank] = plan_.scratch;
      plan_.scratch += call_.counts[rank];
    }
    for (int rank = 0; rank < call_.size; ++rank) {
      Before({CallKind::kReduce,
              {Buffer::kSend, at[rank]},
              {Buffer::kScratch, sums[rank]},
              call_.counts[rank],
              lane_of(rank)});
    }
    ForSlices([&](const std::vector<Slice>& slices, const std::vector<size_t>& counts) {
      Piece piece{.out = {}, .call = {Operation::kReduceScatter, 0, counts, 0}, .in = {}};
      size_t all = 0, own = 0;
      for (const Slice& slice : slices) {
        piece.out.push_back({{Buffer::kScratch, sums[slice.rank] + slice.begin}, slice.count, all});
        all += slice.count;
        if (hosts_.host_of(slice.rank) != host_) continue;
        const Place to = slice.rank == call_.rank ? Place{Buffer::kRecv, slice.begin}
                                                  : Place{Buffer::kScratch, passed[slice.rank] + slice.begin};
        piece.in.push_back({to, slice.count, own});
        own += slice.count;
      }
      plan_.pieces.push_back(std::move(piece));
    });
    for (const int rank : hosts_.ranks_on(host_)) {
      const int lane = lane_of(rank), local = hosts_.local_rank(rank);
      if (local == lane) continue;
      if (local_ == lane)
        After({CallKind::kSend, {Buffer::kScratch, passed[rank]}, {}, call_.counts[rank], local});
      if (rank == call_.rank) After({CallKind::kRecv, {}, {Buffer::kRecv, 0}, call_.counts[rank], lane});
    }
  }

  // ---- Pieces ----

  // Of this lane's share: function(begin, count).
  template <typename Function>
  void ForPieces(const Function& function) {
    if (!is_lane()) return;
    const size_t share = Share(local_);
    for (size_t at = 0; at < share; at += piece_) function(at, std::min(piece_, share - at));
  }

  // Part of the block of a rank.
  struct Slice {
    int rank;
    size_t begin, count;
  };

  // Of all blocks that this lane carries, host by host: function(slices, elements of each host).
  template <typename Function>
  void ForSlices(const Function& function) {
    if (!is_lane()) return;
    std::vector<int> ranks;
    size_t longest = 0;
    for (int host = 0; host < hosts_.num_hosts(); ++host) {
      for (const int rank : hosts_.ranks_on(host)) {
        if (lane_of(rank) != local_) continue;
        ranks.push_back(rank);
        longest = std::max(longest, call_.counts[rank]);
      }
    }
    const size_t step = std::max<size_t>(piece_ / ranks.size(), 1);
    for (size_t at = 0; at < longest; at += step) {
      std::vector<Slice> slices;
      std::vector<size_t> counts(hosts_.num_hosts(), 0);
      for (const int rank : ranks) {
        if (call_.counts[rank] <= at) continue;
        slices.push_back({rank, at, std::min(step, call_.counts[rank] - at)});
        counts[hosts_.host_of(rank)] += slices.back().count;
      }
      function(slices, counts);
    }
  }

  std::vector<size_t> Offsets() const {
    std::vector<size_t> offsets(1, 0);
    for (const size_t count : call_.counts) offsets.push_back(offsets.back() + count);
    return offsets;
  }

  void Before(Step step) {
    if (step.count > 0) plan_.before.push_back(step);
  }
  void After(Step step) {
    if (step.count > 0) plan_.after.push_back(step);
  }

  const Collective& call_;
  const HostMap& hosts_;
  const size_t piece_;
  int host_, local_, local_size_, lanes_;
  Plan plan_;
};

}  // namespace

bool HasHierarchicalPlan(Operation operation) {
  return operation == Operation::kAllReduce || operation == Operation::kReduce ||
         operation == Operation::kBroadcast || operation == Operation::kAllGather ||
         operation == Operation::kReduceScatter;
}

Plan HierarchicalPlan(const Collective& call, size_t piece_elements) {
  COHORT_CHECK(call.hosts != nullptr && call.hosts->num_hosts() > 1, "a hierarchical plan of one host");
  return Builder(call, piece_elements).Build();
}

}  // namespace cohort::comm::nccl
