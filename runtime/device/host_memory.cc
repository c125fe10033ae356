#include "runtime/device/host_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace cohort::runtime {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  int64_t number = 0;
  if (!(file >> word) || !absl::SimpleAtoi(word, &number)) return std::nullopt;  // "max", or no such file
  return number;
}

int64_t AvailableToAll(const std::string& root) {
  std::ifstream file(root + "/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string key;
    int64_t kilobytes = 0;
    if (words >> key >> kilobytes && key == "MemAvailable:") return kilobytes << 10;
  }
  return kUnlimited;
}

// What is left of one group's limit. Its page cache counts as used and could be dropped: inactive files are given back.
int64_t LeftInGroup(const std::string& folder, const char* limit_file, const char* used_file) {
  const std::optional<int64_t> limit = ReadNumber(folder + limit_file);
  const std::optional<int64_t> used = ReadNumber(folder + used_file);
  if (!limit || !used) return kUnlimited;
  int64_t droppable = 0;
  std::ifstream stat(folder + "/memory.stat");
  std::string key;
  for (int64_t value = 0; stat >> key >> value;) {
    if (key == "inactive_file") droppable = value;
  }
  return std::max<int64_t>(0, *limit - *used + droppable);
}

// A line of /proc/self/cgroup is hierarchy:controllers:path; v2's has no controllers (cgroups(7)).
int64_t LeftInControlGroups(const std::string& root) {
  int64_t left = kUnlimited;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const bool v2 = parts[1].empty();
    if (!v2 && parts[1] != "memory") continue;
    const std::string mount = root + (v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory");
    for (std::string group = parts[2] == "/" ? "" : parts[2];; group.resize(group.rfind('/'))) {
      left =
          std::min(left, v2 ? LeftInGroup(mount + group, "/memory.max", "/memory.current")
                            : LeftInGroup(mount + group, "/memory.limit_in_bytes", "/memory.usage_in_bytes"));
      if (group.empty() || group.rfind('/') == std::string::npos) break;
    }
  }
  return left;
}

}  // namespace

int64_t FreeHostMemoryUnder(const std::string& root) {
  return std::min(AvailableToAll(root), LeftInControlGroups(root));
}

int64_t FreeHostMemory() { return FreeHostMemoryUnder(""); }

}  // namespace cohort::runtime
