#include "runtime/collectives/same_hardware.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "comm/check.h"
#include "runtime/device/connected_device.h"

namespace cohort::runtime {

absl::StatusOr<int> RanksOfSameHardware(Device& device, comm::Communicator& ranks) {
  if (device.in_host_memory()) return ranks.topology().local_size();
  std::array<char, 64> mine = {};
  const auto* const connected = dynamic_cast<const ConnectedDevice*>(&device);
  const std::string words = connected != nullptr ? connected->hardware() : device.name();
  std::memcpy(mine.data(), words.data(), std::min(words.size(), mine.size()));
  std::vector<std::array<char, 64>> all(static_cast<size_t>(ranks.size()));
  const std::vector<size_t> counts(all.size(), mine.size());
  COHORT_RETURN_IF_ERROR(ranks.AllGather(mine.data(), all.data(), counts, DataType::kU8).Wait());
  int same = 0;
  for (int rank = 0; rank < ranks.size(); ++rank) {
    const bool here = ranks.topology().host_of(rank) == ranks.topology().host_of(ranks.rank());
    same += here && all[static_cast<size_t>(rank)] == mine ? 1 : 0;
  }
  return same;
}

}  // namespace cohort::runtime
