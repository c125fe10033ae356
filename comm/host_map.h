// Which rank of a group is on which host: a pure value, the same on all ranks.
#pragma once

#include <memory>
#include <vector>

#include "absl/types/span.h"

namespace cohort::comm {

// Hosts are numbered by their lowest rank. They may hold different numbers of ranks, in any order. Immutable and shared
// by the calls of a group; two maps are compared by value.
class HostMap {
 public:
  // host_of[r]: any number that tells the host of rank r from the others. They are renumbered.
  explicit HostMap(absl::Span<const int> host_of);
  // All ranks on one host.
  static std::shared_ptr<const HostMap> OneHost(int size);

  int size() const { return static_cast<int>(host_of_.size()); }
  int num_hosts() const { return static_cast<int>(ranks_on_.size()); }
  int host_of(int rank) const { return host_of_[rank]; }
  // Ascending.
  absl::Span<const int> ranks_on(int host) const { return ranks_on_[host]; }
  // The rank's position among those of its host.
  int local_rank(int rank) const { return local_rank_[rank]; }
  // Ranks of the host that has fewest, and most.
  int fewest_on_a_host() const { return fewest_; }
  int most_on_a_host() const { return most_; }
  bool SameHost(int a, int b) const { return host_of_[a] == host_of_[b]; }

  friend bool operator==(const HostMap& a, const HostMap& b) { return a.host_of_ == b.host_of_; }

 private:
  std::vector<int> host_of_, local_rank_;
  std::vector<std::vector<int>> ranks_on_;
  int fewest_ = 0, most_ = 0;
};

}  // namespace cohort::comm
