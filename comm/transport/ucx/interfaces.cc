#include "comm/transport/ucx/interfaces.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "comm/transport/ucx/policy.h"

namespace cohort::comm::ucx {
namespace {

std::string Text(int family, const unsigned char* bytes) {
  char text[INET6_ADDRSTRLEN] = {};
  return inet_ntop(family, bytes, text, sizeof(text)) == nullptr ? "" : text;
}

// An address of an interface; nothing where it is none that others reach.
Interface Read(const ifaddrs& entry) {
  if (entry.ifa_addr == nullptr || entry.ifa_netmask == nullptr || (entry.ifa_flags & IFF_LOOPBACK) != 0 ||
      (entry.ifa_flags & IFF_UP) == 0 || (entry.ifa_flags & IFF_RUNNING) == 0)
    return {};
  const int family = entry.ifa_addr->sa_family;
  const size_t length = family == AF_INET ? 4 : 16;
  const size_t offset =
      family == AF_INET ? offsetof(sockaddr_in, sin_addr) : offsetof(sockaddr_in6, sin6_addr);
  if (family != AF_INET && family != AF_INET6) return {};
  unsigned char address[16], network[16], mask[16];
  std::memcpy(address, reinterpret_cast<const char*>(entry.ifa_addr) + offset, length);
  std::memcpy(mask, reinterpret_cast<const char*>(entry.ifa_netmask) + offset, length);
  if (family == AF_INET6 && address[0] == 0xfe && (address[1] & 0xc0) == 0x80) return {};  // of its link only
  int bits = 0;
  for (size_t i = 0; i < length; ++i) {
    network[i] = address[i] & mask[i];
    bits += std::popcount(mask[i]);
  }
  return {entry.ifa_name, absl::StrCat(Text(family, network), "/", bits), Text(family, address)};
}

// The first address of each, of the fourth version before the sixth.
std::vector<Interface> Addresses() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return {};
  std::vector<Interface> found;
  for (const int family : {AF_INET, AF_INET6}) {
    for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
      if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != family) continue;
      Interface one = Read(*entry);
      const bool known = std::any_of(found.begin(), found.end(),
                                     [&](const Interface& other) { return other.name == one.name; });
      if (!one.name.empty() && !known) found.push_back(std::move(one));
    }
  }
  freeifaddrs(list);
  return found;
}

bool HasRdma() {
  std::error_code error;
  return std::filesystem::directory_iterator("/sys/class/infiniband", error) !=
         std::filesystem::directory_iterator();
}

}  // namespace

std::string Interface::ToText() const { return absl::StrCat(network, " ", address); }

absl::StatusOr<Interface> Interface::FromText(const std::string& text) {
  const std::vector<std::string> fields = absl::StrSplit(text, ' ');
  if (fields.size() != 2)
    return absl::InvalidArgumentError(absl::StrCat("'", text, "' is no network interface"));
  return Interface{"", fields[0], fields[1]};
}

std::vector<Interface> Interfaces() {
  std::vector<Interface> found;
  if (std::getenv("UCX_NET_DEVICES") == nullptr && !HasRdma()) found = Addresses();
  if (const char* wish = std::getenv("COHORT_NET_DEVICES"); wish != nullptr && *wish != '\0') {
    const std::vector<std::string> names = absl::StrSplit(wish, ',');
    std::erase_if(found, [&](const Interface& one) {
      return std::find(names.begin(), names.end(), one.name) == names.end();
    });
  }
  if (found.size() > policy::kMaxRails) found.resize(policy::kMaxRails);
  if (found.empty()) found.emplace_back();
  if (found.size() == 1) found[0].name.clear();
  return found;
}

std::vector<std::pair<int, int>> PairInterfaces(const std::vector<Interface>& own,
                                                const std::vector<Interface>& theirs) {
  std::map<std::string, std::pair<std::vector<int>, std::vector<int>>> networks;
  const auto shared = [](const std::vector<Interface>& others, const Interface& one) {
    return std::any_of(others.begin(), others.end(),
                       [&](const Interface& other) { return other.address == one.address; });
  };
  for (size_t i = 0; i < own.size(); ++i) {
    if (!own[i].network.empty() && !shared(theirs, own[i]))
      networks[own[i].network].first.push_back(static_cast<int>(i));
  }
  for (size_t i = 0; i < theirs.size(); ++i) {
    if (!theirs[i].network.empty() && !shared(own, theirs[i]))
      networks[theirs[i].network].second.push_back(static_cast<int>(i));
  }
  std::vector<std::pair<int, int>> pairs;
  for (const auto& [network, both] : networks) {
    for (size_t i = 0; i < std::min(both.first.size(), both.second.size()); ++i)
      pairs.emplace_back(both.first[i], both.second[i]);
  }
  if (pairs.empty()) pairs.emplace_back(0, 0);
  return pairs;
}

}  // namespace cohort::comm::ucx
