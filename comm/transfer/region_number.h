// Numbers of regions: a slot of the owner's table, which is used again, and how often it was used before.
#pragma once

#include <cstdint>

namespace cohort::comm::transfer {

inline constexpr uint64_t kRegionSlotBits = 24;
inline constexpr uint32_t RegionSlot(uint64_t number) {
  return static_cast<uint32_t>(number & ((uint64_t{1} << kRegionSlotBits) - 1));
}
inline constexpr uint64_t NextRegionNumber(uint64_t number) {
  return number + (uint64_t{1} << kRegionSlotBits);
}

}  // namespace cohort::comm::transfer
