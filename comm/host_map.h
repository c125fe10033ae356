// Which rank of a group is where: on which host, and inside it on which socket and in which NUMA domain. A pure value,
// the same on all ranks.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"

namespace cohort::comm {

// What lies between two ranks, from near to far. Racks are the price list's: hosts do not say where they stand.
enum class Distance : uint8_t { kNuma, kSocket, kHost, kRack, kBeyond };
inline constexpr int kNumDistances = 5;

// Hosts are numbered by their lowest rank. They may hold different numbers of ranks, in any order. Immutable and shared
// by the calls of a group; two maps are compared by value.
class HostMap {
 public:
  // Any number that tells the host of a rank from others, and any that tell sockets and NUMA domains of one host apart;
  // -1 where a rank may run on several of them, or nobody knows.
  struct Place {
    int host = 0, socket = -1, numa = -1;
    friend bool operator==(const Place&, const Place&) = default;
  };
  explicit HostMap(absl::Span<const Place> places);
  // Where nothing is known but the hosts.
  explicit HostMap(absl::Span<const int> host_of);
  // All ranks on one host.
  static std::shared_ptr<const HostMap> OneHost(int size);

  int size() const { return static_cast<int>(places_.size()); }
  int num_hosts() const { return static_cast<int>(ranks_on_.size()); }
  int host_of(int rank) const { return places_[rank].host; }
  // As given.
  int socket_of(int rank) const { return places_[rank].socket; }
  int numa_of(int rank) const { return places_[rank].numa; }
  // Ascending.
  absl::Span<const int> ranks_on(int host) const { return ranks_on_[host]; }
  // The rank's position among those of its host.
  int local_rank(int rank) const { return local_rank_[rank]; }
  // Ranks of the host that has fewest, and most.
  int fewest_on_a_host() const { return fewest_; }
  int most_on_a_host() const { return most_; }
  bool SameHost(int a, int b) const { return host_of(a) == host_of(b); }
  // kRack for any two hosts.
  Distance Between(int a, int b) const;

  friend bool operator==(const HostMap& a, const HostMap& b) { return a.places_ == b.places_; }

 private:
  std::vector<Place> places_;  // hosts renumbered
  std::vector<int> local_rank_;
  std::vector<std::vector<int>> ranks_on_;
  int fewest_ = 0, most_ = 0;
};

}  // namespace cohort::comm
