// How much memory this host still has for this process.
#pragma once

#include <cstdint>
#include <string>

namespace cohort::runtime {

// Bytes that this process could still use before the kernel kills somebody: the least of what the machine has
// (MemAvailable of /proc/meminfo) and what is left of the limits of the process's control group and the groups above
// it (memory.max of cgroup v2, memory.limit_in_bytes of v1). INT64_MAX where neither can be read. Memory of other
// processes changes it at any moment: it is an estimate. Thread-safe.
int64_t FreeHostMemory();

// The same of a tree of files elsewhere, for tests: `root` stands for /.
int64_t FreeHostMemoryUnder(const std::string& root);

}  // namespace cohort::runtime
