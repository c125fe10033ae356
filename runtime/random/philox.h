// Counter-based random numbers: a number is a pure function of (seed, purpose, step, index), so it does not depend
// on which rank draws it, in which order, or how often. The generator itself is comm/philox.h.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "comm/philox.h"

namespace cohort::runtime {

// What a stream of numbers is for: two purposes never share a number. Values are part of what a run's seed
// means, so they are never reused or renumbered.
enum class RandomPurpose : uint16_t {
  kDataOrder = 1,
  kDataSplit = 2,
  kWeightInit = 3,
  kDropout = 4,
  kSampling = 5,
  kGateNoise = 6,
  kTokenDrop = 7,
  kCodecRounding = comm::kRoundingPurpose,  // drawn by comm/codec
};

// Four 32-bit numbers for (seed, purpose, step, index). `step` must be below 2^48.
constexpr PhiloxCounter RandomBits(uint64_t seed, RandomPurpose purpose, uint64_t step, uint64_t index) {
  return Philox4x32(
      {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), static_cast<uint32_t>(step),
       static_cast<uint32_t>(purpose) << 16 | (static_cast<uint32_t>(step >> 32) & 0xFFFFu)},
      {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
}

// Uniform in [0, 1), with 24 bits of resolution.
constexpr float UniformFloat(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }

// Uniform in [0, 1), with 53 bits of resolution.
constexpr double UniformDouble(uint32_t high, uint32_t low) {
  return static_cast<double>((static_cast<uint64_t>(high) << 32 | low) >> 11) * 0x1p-53;
}

// Two independent standard normal numbers from two uniform words (Box and Muller).
inline std::array<double, 2> NormalPair(uint32_t bits0, uint32_t bits1) {
  const double radius = std::sqrt(-2.0 * std::log((static_cast<double>(bits0) + 1.0) * 0x1p-32));
  const double angle = 2.0 * std::numbers::pi * static_cast<double>(bits1) * 0x1p-32;
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

}  // namespace cohort::runtime
