// Counter-based random numbers: Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers:
// as easy as 1, 2, 3" (SC 2011). A number is a pure function of (seed, purpose, step, index), so it does not
// depend on which rank draws it, in which order, or how often.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace cohort::runtime {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

// Ten rounds. Gives the known answers published with Random123.
constexpr PhiloxCounter Philox4x32(PhiloxCounter counter, PhiloxKey key) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = static_cast<uint64_t>(kMultiplier0) * counter[0];
    const uint64_t product1 = static_cast<uint64_t>(kMultiplier1) * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key = {key[0] + kWeyl0, key[1] + kWeyl1};
  }
  return counter;
}

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
