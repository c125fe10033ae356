// What hwloc finds: the parts of this host, and on which of them this process may run.
#pragma once

#include <string>

namespace cohort::comm {

struct Locality {
  // Of what this process may see: a container may hide some. 0 where hwloc finds nothing; then a host is flat.
  int sockets = 0, numa_domains = 0, last_level_caches = 0, cores = 0, threads = 0;
  // The operating system's numbers of the socket and the NUMA domain that hold all cores this process is bound to;
  // -1 where these are on several, or nobody knows.
  int socket = -1, numa = -1;
  // The hardware threads it is bound to, as "0-3,8".
  std::string bound_to;
};

// Looks anew: where a launcher binds processes, it has done so before they start. Takes some milliseconds. Never fails:
// what cannot be found out is left as above.
Locality FindLocality();

}  // namespace cohort::comm
