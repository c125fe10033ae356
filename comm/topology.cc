#include "comm/topology.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::comm {

Topology::Topology(int rank, absl::Span<const std::string> hosts) : rank_(rank) {
  COHORT_CHECK(rank >= 0 && rank < static_cast<int>(hosts.size()), "rank %d of %zu", rank, hosts.size());
  std::unordered_map<std::string, int> number_of;
  std::vector<int> host_of;
  for (const std::string& host : hosts) {
    const auto [at, fresh] = number_of.try_emplace(host, static_cast<int>(hosts_.size()));
    if (fresh) hosts_.push_back(host);
    host_of.push_back(at->second);
  }
  map_ = std::make_shared<const HostMap>(host_of);
}

Topology Topology::Group(absl::Span<const int> members, int rank) const {
  std::vector<std::string> hosts;
  hosts.reserve(members.size());
  for (const int member : members) hosts.push_back(hosts_[host_of(member)]);
  return Topology(rank, hosts);
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

}  // namespace cohort::comm
