// Which rank is on which host.
#pragma once

#include <string>
#include <vector>

#include "absl/types/span.h"

namespace cohort::comm {

// A pure value, equal on all ranks but for rank(). Hosts are numbered by their lowest rank. Hosts may hold
// different numbers of ranks, in any order.
class Topology {
 public:
  // hosts[r] identifies the host of rank r: ranks of equal strings can share memory.
  Topology(int rank, absl::Span<const std::string> hosts);

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(host_of_.size()); }
  int num_hosts() const { return static_cast<int>(ranks_on_.size()); }

  int host_of(int rank) const { return host_of_[rank]; }
  // The host's identity, as given.
  const std::string& host(int host) const { return hosts_[host]; }
  // Ascending.
  absl::Span<const int> ranks_on(int host) const { return ranks_on_[host]; }

  // This rank's host: its ranks, and this rank's position among them.
  absl::Span<const int> local_ranks() const { return ranks_on_[host_of_[rank_]]; }
  int local_size() const { return static_cast<int>(local_ranks().size()); }
  int local_rank() const { return local_rank_; }

  // The topology of a group: rank i of it is members[i] here, and this rank is members[rank].
  Topology Group(absl::Span<const int> members, int rank) const;

 private:
  int rank_ = 0;
  int local_rank_ = 0;
  std::vector<int> host_of_;
  std::vector<std::string> hosts_;
  std::vector<std::vector<int>> ranks_on_;
};

// This host's identity: its name, its boot and the process namespace. Ranks that agree on it see each other's
// processes and memory.
std::string HostIdentity();

}  // namespace cohort::comm
