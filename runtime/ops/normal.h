// The normal numbers of Ops::FillNormal, the same on every device.
#pragma once

#include <array>
#include <cstdint>

#include "runtime/random/philox.h"

namespace cohort::runtime {

// Numbers 4 block ... 4 block + 3 of the stream (seed, purpose).
inline std::array<double, 4> NormalBlock(uint64_t seed, uint32_t purpose, uint64_t block) {
  const PhiloxCounter bits = RandomBits(seed, RandomPurpose::kWeightInit, purpose, block);
  const std::array<double, 2> first = NormalPair(bits[0], bits[1]);
  const std::array<double, 2> second = NormalPair(bits[2], bits[3]);
  return {first[0], first[1], second[0], second[1]};
}

}  // namespace cohort::runtime
