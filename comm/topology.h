// Which rank is where.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "comm/host_map.h"

namespace cohort::comm {

// What a rank tells the others of where it runs.
struct Location {
  std::string host;  // HostIdentity(), or what a declared topology makes of it
  // As in Locality.
  int socket = -1, numa = -1;
};

// A pure value, equal on all ranks but for rank(): a HostMap, this rank's place in it, and the hosts' names.
class Topology {
 public:
  Topology(int rank, absl::Span<const Location> locations);
  // Where nothing is known but the hosts.
  Topology(int rank, absl::Span<const std::string> hosts);

  const std::shared_ptr<const HostMap>& map() const { return map_; }
  int rank() const { return rank_; }
  int size() const { return map_->size(); }
  int num_hosts() const { return map_->num_hosts(); }

  int host_of(int rank) const { return map_->host_of(rank); }
  // The host's identity, as given.
  const std::string& host(int host) const { return hosts_[host]; }
  // Ascending.
  absl::Span<const int> ranks_on(int host) const { return map_->ranks_on(host); }
  Location location(int rank) const {
    return {host(host_of(rank)), map_->socket_of(rank), map_->numa_of(rank)};
  }

  // This rank's host: its ranks, and this rank's position among them.
  absl::Span<const int> local_ranks() const { return ranks_on(host_of(rank_)); }
  int local_size() const { return static_cast<int>(local_ranks().size()); }
  int local_rank() const { return map_->local_rank(rank_); }

  // The topology of a group: rank i of it is members[i] here, and this rank is members[rank].
  Topology Group(absl::Span<const int> members, int rank) const;

 private:
  int rank_ = 0;
  std::vector<std::string> hosts_;
  std::shared_ptr<const HostMap> map_;
};

// This host's identity: its name, its boot and the process namespace. Ranks that agree on it see each other's
// processes and memory. Or COHORT_HOST_ID, with which tests have several hosts on one machine.
std::string HostIdentity();
// Where this process runs, as hwloc finds it.
Location Here();

}  // namespace cohort::comm
