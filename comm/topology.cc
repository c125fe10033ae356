#include "comm/topology.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::comm {

Topology::Topology(int rank, absl::Span<const std::string> hosts) : rank_(rank) {
  COHORT_CHECK(rank >= 0 && rank < static_cast<int>(hosts.size()), "rank %d of %zu", rank, hosts.size());
  for (int r = 0; r < static_cast<int>(hosts.size()); ++r) {
    const auto at = std::find(hosts_.begin(), hosts_.end(), hosts[r]);
    const int host = static_cast<int>(at - hosts_.begin());
    if (at == hosts_.end()) {
      hosts_.push_back(hosts[r]);
      ranks_on_.emplace_back();
    }
    if (r == rank) local_rank_ = static_cast<int>(ranks_on_[host].size());
    host_of_.push_back(host);
    ranks_on_[host].push_back(r);
  }
}

Topology Topology::Group(absl::Span<const int> members, int rank) const {
  std::vector<std::string> hosts;
  hosts.reserve(members.size());
  for (const int member : members) hosts.push_back(hosts_[host_of_[member]]);
  return Topology(rank, hosts);
}

std::string HostIdentity() {
  char name[256] = "localhost";
  gethostname(name, sizeof(name) - 1);
  std::string boot = "unknown-boot";
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  struct stat pid_namespace = {};
  stat("/proc/self/ns/pid", &pid_namespace);
  return absl::StrCat(name, "/", boot, "/", pid_namespace.st_ino);
}

}  // namespace cohort::comm
