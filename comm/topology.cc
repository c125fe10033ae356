#include "comm/topology.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "comm/locality.h"

namespace cohort::comm {

namespace {

std::vector<Location> OnHosts(absl::Span<const std::string> hosts) {
  std::vector<Location> locations;
  for (const std::string& host : hosts) locations.push_back({host, -1, -1});
  return locations;
}

}  // namespace

Topology::Topology(int rank, absl::Span<const std::string> hosts) : Topology(rank, OnHosts(hosts)) {}

Topology::Topology(int rank, absl::Span<const Location> locations) : rank_(rank) {
  COHORT_CHECK(rank >= 0 && rank < static_cast<int>(locations.size()), "rank %d of %zu", rank,
               locations.size());
  std::unordered_map<std::string, int> number_of;
  std::vector<HostMap::Place> places;
  for (const Location& location : locations) {
    const auto [at, fresh] = number_of.try_emplace(location.host, static_cast<int>(hosts_.size()));
    if (fresh) hosts_.push_back(location.host);
    places.push_back({at->second, location.socket, location.numa});
  }
  map_ = std::make_shared<const HostMap>(places);
}

Topology Topology::Group(absl::Span<const int> members, int rank) const {
  std::vector<Location> locations;
  locations.reserve(members.size());
  for (const int member : members) locations.push_back(location(member));
  return Topology(rank, locations);
}

std::string HostIdentity() {
  if (const char* told = std::getenv("COHORT_HOST_ID"); told != nullptr && *told != '\0') return told;
  char name[256] = "localhost";
  gethostname(name, sizeof(name) - 1);
  std::string boot = "unknown-boot";
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  struct stat pid_namespace = {};
  stat("/proc/self/ns/pid", &pid_namespace);
  return absl::StrCat(name, "/", boot, "/", pid_namespace.st_ino);
}

Location Here() {
  const Locality found = FindLocality();
  return {HostIdentity(), found.socket, found.numa};
}

}  // namespace cohort::comm
