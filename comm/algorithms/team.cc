#include "comm/algorithms/team.h"

#include <algorithm>
#include <numeric>

#include "comm/algorithms/policy.h"

namespace cohort::comm::algorithms {

std::shared_ptr<const HostMap> Hosts(const Collective& c) {
  return c.hosts != nullptr ? c.hosts : HostMap::OneHost(c.size);
}

Team Everyone(const Collective& c) {
  Team team;
  team.ranks.resize(c.size);
  std::iota(team.ranks.begin(), team.ranks.end(), 0);
  team.place = c.rank;
  return team;
}

Team From(const Collective& c, int first) {
  Team team = Everyone(c);
  std::rotate(team.ranks.begin(), team.ranks.begin() + first, team.ranks.end());
  team.place = Modulo(c.rank - first, c.size);
  return team;
}

Leaders::Leaders(const Collective& c)
    : hosts_(Hosts(c)),
      root_(c.root),
      root_host_(hosts_->host_of(c.root)),
      place_(Modulo(hosts_->host_of(c.rank) - root_host_, hosts_->num_hosts())) {}

Lanes::Lanes(const Collective& c)
    : hosts_(Hosts(c)), rank_(c.rank), host_(hosts_->host_of(c.rank)), num_lanes_(hosts_->most_on_a_host()) {}

Lanes::Lanes(const Collective& c, size_t count) : Lanes(c) {
  const size_t worth = std::max<size_t>(1, count / policy::kLaneElements);
  if (worth < static_cast<size_t>(num_lanes_)) num_lanes_ = static_cast<int>(worth);
}

int Lanes::Owner(int host, int lane) const {
  const auto ranks = hosts_->ranks_on(host);
  return ranks[static_cast<size_t>(lane) * ranks.size() / num_lanes_];
}

Range Lanes::OwnedBy(int host, int place) const {
  // Lanes r with floor(r * g / R) == place.
  const size_t g = hosts_->ranks_on(host).size(), lanes = num_lanes_, at = place;
  const size_t begin = (at * lanes + g - 1) / g, end = ((at + 1) * lanes + g - 1) / g;
  return {begin, end - begin};
}

std::vector<int> Lanes::Blocks(int lane) const {
  std::vector<int> blocks;
  for (int host = 0; host < num_hosts(); ++host) {
    const int owner = Owner(host, lane);
    const bool first = OwnedBy(host, hosts_->local_rank(owner)).begin == static_cast<size_t>(lane);
    blocks.push_back(first ? owner : -1);
  }
  return blocks;
}

std::vector<size_t> Lanes::LocalCuts(const std::vector<size_t>& lane_cuts) const {
  std::vector<size_t> cuts;
  const int ranks = static_cast<int>(hosts_->ranks_on(host_).size());
  for (int place = 0; place < ranks; ++place) cuts.push_back(lane_cuts[OwnedBy(host_, place).begin]);
  cuts.push_back(lane_cuts.back());
  return cuts;
}

Team Lanes::Local() const {
  const auto ranks = hosts_->ranks_on(host_);
  return {{ranks.begin(), ranks.end()}, hosts_->local_rank(rank_)};
}

Team Lanes::Across(int lane) const {
  Team team;
  for (int host = 0; host < num_hosts(); ++host) team.ranks.push_back(Owner(host, lane));
  team.place = host_;
  return team;
}

}  // namespace cohort::comm::algorithms
