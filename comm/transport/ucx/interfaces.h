// The network interfaces of this host, and which of them reach which of another's.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace cohort::comm::ucx {

struct Interface {
  std::string name;     // "eth0"; empty: whatever UCX chooses
  std::string network;  // "10.77.0.0/24"; empty: unknown
  std::string address;  // "10.77.0.1"

  // "NETWORK ADDRESS", what another host needs; the name is this host's affair.
  std::string ToText() const;
  static absl::StatusOr<Interface> FromText(const std::string& text);
};

// Those that messages may travel over side by side: the interfaces that are up and have an address, without loopback;
// where COHORT_NET_DEVICES names some, these. One without a name, UCX's choice, where there are fewer than two, where
// UCX_NET_DEVICES has chosen, or where the host has RDMA devices, which UCX bundles itself. Never empty.
std::vector<Interface> Interfaces();

// Which of this host's go with which of a peer's (numbers of both): those of one network, in the order of networks, so
// that both sides find the same pairs in the same order. Addresses that both hosts have lead nowhere. Where no networks
// match, the first of each.
std::vector<std::pair<int, int>> PairInterfaces(const std::vector<Interface>& own,
                                                const std::vector<Interface>& theirs);

}  // namespace cohort::comm::ucx
