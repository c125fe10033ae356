#include "tools/cohort/bench/wire.h"

#include <filesystem>
#include <fstream>
#include <system_error>

namespace cohort::tools {

int64_t BytesSentByHost() {
  int64_t sum = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/class/net", error)) {
    if (entry.path().filename() == "lo") continue;
    std::ifstream file(entry.path() / "statistics" / "tx_bytes");
    int64_t bytes = 0;
    if (file >> bytes) sum += bytes;
  }
  return sum;
}

}  // namespace cohort::tools
