// Teams: the ranks of a group that make one part of an algorithm together, and how a buffer is cut among
// hosts.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "comm/algorithms/algorithm.h"
#include "comm/host_map.h"

namespace cohort::comm::algorithms {

// Some ranks of a group, in the same order for all of them.
struct Team {
  std::vector<int> ranks;
  int place = 0;  // this rank is ranks[place]

  int size() const { return static_cast<int>(ranks.size()); }
  // The rank `distance` places on, round the team.
  int At(int distance) const { return ranks[Modulo(place + distance, size())]; }
};

Team Everyone(const Collective& collective);
// Everyone, counted from rank `first`.
Team From(const Collective& collective, int first);

// Lanes (Traff and Hunold, "Decomposing Collectives for Exploiting Multi-lane Communication", 2020): a buffer is cut into
// as many lanes on every host, whatever the number of its ranks, and every lane has one owner on each host. Then each
// host has summed each lane once before it crosses to another, and the owners of a lane make a team across hosts. Not
// to be taken for a rail, which is a network interface of a host.
class Lanes {
 public:
  // At most as many lanes as the largest host has ranks, and none shorter than policy::kLaneElements of
  // `count`.
  Lanes(const Collective& collective, size_t count);
  // As many as the largest host has ranks.
  explicit Lanes(const Collective& collective);

  const HostMap& hosts() const { return *hosts_; }
  int num_hosts() const { return hosts_->num_hosts(); }
  int num_lanes() const { return num_lanes_; }
  // The rank on `host` that owns the lane. Owners ascend with the lanes, so a rank's lanes follow each other.
  int Owner(int host, int lane) const;
  // Lanes [begin, begin + count) of the `place`-th rank of a host.
  Range OwnedBy(int host, int place) const;

  // For operations whose parts belong to ranks: by host, the rank whose part the lane carries, -1 where
  // its owner has an earlier lane for that. Every rank's part is on one lane, of which it is the owner.
  std::vector<int> Blocks(int lane) const;

  // A buffer cut by lanes, cut by this host's ranks instead: each has its lanes.
  std::vector<size_t> LocalCuts(const std::vector<size_t>& lane_cuts) const;
  // The ranks of this rank's host.
  Team Local() const;
  // The owners of a lane, one a host, in the order of hosts.
  Team Across(int lane) const;
  // This rank's own lanes.
  Range Own() const { return OwnedBy(host_, hosts_->local_rank(rank_)); }

 private:
  std::shared_ptr<const HostMap> hosts_;
  int rank_, host_;
  int num_lanes_;
};

// Whom a member that has something for everybody sends to: those on its own host at once, the others one after the
// other. Messages at once would share its host's link, and so would those that come to another host from everywhere:
// they do not share it evenly, and links idle where the last ones are waited for. In turns, each of a distance of its
// own, every link carries one message at a time.
class Turns {
 public:
  Turns(const HostMap& hosts, int rank) : hosts_(hosts), rank_(rank) {}
  // The step to wait for, and the one to wait for next.
  StepId Before(int peer) const { return hosts_.SameHost(rank_, peer) ? kNoStep : last_; }
  void Note(int peer, StepId sent) {
    if (!hosts_.SameHost(rank_, peer) && sent != kNoStep) last_ = sent;
  }

 private:
  const HostMap& hosts_;
  const int rank_;
  StepId last_ = kNoStep;
};

// One rank of every host: the root on its own, the first on the others. Hosts are counted from the root's.
class Leaders {
 public:
  explicit Leaders(const Collective& collective);

  const HostMap& hosts() const { return *hosts_; }
  int size() const { return hosts_->num_hosts(); }
  int HostAt(int place) const { return Modulo(root_host_ + place, size()); }
  int At(int place) const { return place == 0 ? root_ : hosts_->ranks_on(HostAt(place))[0]; }
  // Of this rank's host.
  int place() const { return place_; }

 private:
  std::shared_ptr<const HostMap> hosts_;
  int root_, root_host_, place_;
};

// The map of the call; one host where it has none.
std::shared_ptr<const HostMap> Hosts(const Collective& collective);

}  // namespace cohort::comm::algorithms
