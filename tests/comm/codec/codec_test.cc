// Codecs against plain double-precision code, and their vector kernels against the portable ones.
#include "comm/codec/codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "absl/types/span.h"
#include "comm/codec/kernels.h"
#include "comm/codec/policy.h"

namespace cohort::comm {
namespace {

// Also where both are NaN, and where one is -0.
bool SameBits(absl::Span<const float> a, absl::Span<const float> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
  });
}

constexpr size_t kSizes[] = {0,   1,   2,   3,   7,    127,  128,  129,  255,
                             256, 257, 300, 511, 1000, 1023, 1024, 1025, 4099};
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> Random(size_t count, uint32_t seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

std::vector<std::byte> Encode(const Codec& codec, const Encoding& encoding, const std::vector<float>& values,
                              float* residual = nullptr, size_t first = 0) {
  std::vector<std::byte> wire(codec.EncodedBytes(values.size()) + 8, std::byte{0x5a});
  codec.Encode(encoding, values.data(), DataType::kF32, values.size(), first, residual, wire.data());
  for (size_t i = wire.size() - 8; i < wire.size(); ++i) EXPECT_EQ(wire[i], std::byte{0x5a}) << "overrun";
  wire.resize(wire.size() - 8);
  return wire;
}

std::vector<float> Decode(const Codec& codec, const std::vector<std::byte>& wire, size_t count) {
  std::vector<float> values(count + 1, 77);
  codec.Decode(wire.data(), count, values.data(), DataType::kF32);
  EXPECT_EQ(values[count], 77) << "overrun";
  values.resize(count);
  return values;
}

// The values of element i's block.
absl::Span<const float> BlockOf(const Codec& codec, const std::vector<float>& values, size_t i) {
  return absl::MakeConstSpan(values).subspan(i / codec.block * codec.block, codec.block);
}

// Their largest magnitude.
double Largest(const Codec& codec, const std::vector<float>& values, size_t i) {
  double largest = 0;
  for (const float value : BlockOf(codec, values, i)) {
    largest = std::max(largest, std::fabs(static_cast<double>(value)));
  }
  return largest;
}

double Extent(CodecKind kind) {
  switch (kind) {
#define COHORT_X(enumerator, name, bits, block, header, extent, error, description) \
  case CodecKind::enumerator:                                                       \
    return extent;
    COHORT_CODECS(COHORT_X)
#undef COHORT_X
  }
  return 0;
}

// What the format can hold, by plain double-precision code: the neighbours of a value, one step apart.
struct Neighbours {
  double below, above;
};
Neighbours Around(const Codec& codec, const std::vector<float>& values, size_t i) {
  const double extent = Extent(codec.kind);
  double origin = 0, scale = Largest(codec, values, i) / extent, step = 1;
  if (codec.shifts()) {
    const auto block = BlockOf(codec, values, i);
    const auto [low, high] = std::minmax_element(block.begin(), block.end());
    origin = *low;
    scale = (static_cast<double>(*high) - *low) / extent;
    if (scale == 0) return {origin, origin};
  }
  const double x = (values[i] - origin) / scale;
  if (codec.kind == CodecKind::kFp8) {
    const int exponent = x == 0 ? -100 : std::ilogb(x);
    step = std::ldexp(1.0, std::max(exponent, -6) - 3);
  }
  return {std::floor(x / step) * step * scale + origin, std::ceil(x / step) * step * scale + origin};
}

TEST(CodecTest, NearestIsTheNearerNeighbour) {
  for (const Codec& codec : Codecs()) {
    for (const size_t count : kSizes) {
      for (const float spread : {1.0f, 3e-12f, 1e30f}) {
        const std::vector<float> values = Random(count, 7 + static_cast<uint32_t>(count), spread);
        const std::vector<float> decoded = Decode(codec, Encode(codec, {}, values), count);
        for (size_t i = 0; i < count; ++i) {
          const double largest = Largest(codec, values, i);
          const Neighbours around = Around(codec, values, i);
          const double best = std::min(values[i] - around.below, around.above - values[i]);
          const double error = std::fabs(static_cast<double>(decoded[i]) - values[i]);
          ASSERT_LE(error, best + 1e-6 * largest) << codec.name << ", " << count << " elements, " << i;
          ASSERT_LE(error, codec.max_error * largest * 1.00001) << codec.name;
        }
      }
    }
  }
}

TEST(CodecTest, StochasticIsOneOfTheNeighboursAndRightInTheMean) {
  constexpr int kTrials = 300;
  for (const Codec& codec : Codecs()) {
    const size_t count = 2 * codec.block;
    const std::vector<float> values = Random(count, 3);
    std::vector<double> mean(count, 0);
    for (int trial = 0; trial < kTrials; ++trial) {
      const Encoding encoding{Rounding::kStochastic, 11, static_cast<uint64_t>(trial), 2};
      const std::vector<float> decoded = Decode(codec, Encode(codec, encoding, values), count);
      for (size_t i = 0; i < count; ++i) {
        mean[i] += decoded[i] / double{kTrials};
        const double largest = Largest(codec, values, i);
        const Neighbours around = Around(codec, values, i);
        ASSERT_GE(decoded[i], around.below - 1e-6 * largest) << codec.name << " " << i;
        ASSERT_LE(decoded[i], around.above + 1e-6 * largest) << codec.name << " " << i;
      }
    }
    double bias = 0;
    for (size_t i = 0; i < count; ++i) {
      const Neighbours around = Around(codec, values, i);
      const double step = around.above - around.below + 1e-9;
      if (step <= 2e-9) {  // a point of the lattice: f32's own rounding alone
        ASSERT_NEAR(mean[i], values[i], 1e-6 * Largest(codec, values, i)) << codec.name << " " << i;
        continue;
      }
      // Six standard deviations of the mean of values that are up to half a step from it.
      ASSERT_LE(std::fabs(mean[i] - values[i]), 6 * 0.5 * step / std::sqrt(double{kTrials}) + 1e-5 * step)
          << codec.name << " " << i;
      bias += (mean[i] - values[i]) / step;
    }
    EXPECT_LE(std::fabs(bias / static_cast<double>(count)),
              6 * 0.5 / std::sqrt(static_cast<double>(count) * kTrials))
        << codec.name;
  }
}

TEST(CodecTest, WhatIsDrawnDependsOnSeedStepStreamAndIndexOnly) {
  for (const Codec& codec : Codecs()) {
    const std::vector<float> values = Random(5 * codec.block + 9, 5);
    const Encoding encoding{Rounding::kStochastic, 1, 2, 3};
    const auto whole = Encode(codec, encoding, values);
    EXPECT_EQ(whole, Encode(codec, encoding, values));
    for (const Encoding& other : {Encoding{Rounding::kStochastic, 2, 2, 3},
                                  {Rounding::kStochastic, 1, 3, 3},
                                  {Rounding::kStochastic, 1, 2, 4},
                                  {Rounding::kNearest, 1, 2, 3}}) {
      EXPECT_NE(whole, Encode(codec, other, values)) << codec.name;
    }
    // In two calls.
    const std::vector<float> rest(values.begin() + static_cast<std::ptrdiff_t>(2 * codec.block),
                                  values.end());
    const auto end = Encode(codec, encoding, rest, nullptr, 2 * codec.block);
    ASSERT_EQ(0, std::memcmp(end.data(), whole.data() + codec.EncodedBytes(2 * codec.block), end.size()))
        << codec.name;
  }
}

// All roundings that a codec can have.
std::vector<Rounding> RoundingsOf(const Codec& codec) {
  std::vector<Rounding> roundings = {Rounding::kNearest, Rounding::kStochastic};
  if (codec.shifts()) roundings.push_back(Rounding::kShift);
  return roundings;
}

TEST(CodecTest, EveryVectorLevelGivesTheSameBits) {
  constexpr size_t kBlocks = 64, kRun = 256;
  std::vector<float> cases = Random(kBlocks * policy::kCodecBucket, 9);
  std::mt19937 random(1);
  for (size_t i = 0; i < cases.size(); ++i) {
    const size_t run = i / kRun;
    // Any finite bits, scaled values with ties, denormals.
    if (run % 4 == 1) cases[i] = std::bit_cast<float>(static_cast<uint32_t>(random()) & 0xbfffffffu);
    if (run % 4 == 2) cases[i] = static_cast<float>(static_cast<int>(random() % 509) - 254) * 0.5f;
    if (run % 4 == 3)
      cases[i] = std::bit_cast<float>(static_cast<uint32_t>(random()) & 0x807fffffu >> run % 16);
  }
  // Where a block is a run of several kinds, also each kind alone.
  for (size_t i = cases.size() / 2; i < cases.size(); ++i) cases[i] = cases[i / kRun / 4 * kRun + i % kRun];
  for (const Codec& codec : Codecs()) {
    const auto plain = codec::FindKernels(codec.kind, ProcessorLevel::kBaseline);
    for (const ProcessorLevel level : {ProcessorLevel::kAvx2, ProcessorLevel::kAvx512}) {
      if (level > GetProcessorLevel()) continue;
      const auto vector = codec::FindKernels(codec.kind, level);
      for (uint32_t block = 0; block < cases.size() / codec.block; ++block) {
        for (const Rounding rounding : RoundingsOf(codec)) {
          const codec::BlockCounter counter{1, 2, 3, block};
          std::vector<std::byte> a(codec.block), b(codec.block);
          const float* values = cases.data() + block * codec.block;
          const codec::BlockHeader x = plain.encode(values, rounding, counter, a.data());
          const codec::BlockHeader y = vector.encode(values, rounding, counter, b.data());
          ASSERT_TRUE(SameBits({x.scale, x.base}, {y.scale, y.base})) << codec.name << " block " << block;
          ASSERT_EQ(a, b) << codec.name << " block " << block;
          std::vector<float> p(codec.block), q(codec.block);
          plain.decode(x, a.data(), p.data());
          vector.decode(x, a.data(), q.data());
          ASSERT_TRUE(SameBits(p, q)) << codec.name;
          plain.decode_add(x, a.data(), p.data());
          vector.decode_add(x, a.data(), q.data());
          ASSERT_TRUE(SameBits(p, q)) << codec.name;
        }
      }
    }
  }
}

// QSDP's rounding of weights, by plain double-precision code: the values lie on one lattice of the block's step, whose
// shift is uniform, each value goes to the nearest point, and the mean over shifts is the value.
TEST(CodecTest, AShiftedLatticeIsOneLatticeABlockAndRightInTheMean) {
  constexpr int kTrials = 2000;
  for (const Codec& codec : Codecs()) {
    if (!codec.shifts()) continue;
    const size_t count = codec.block + 333;
    std::vector<float> values = Random(count, 12);
    for (size_t i = codec.block; i < count; ++i) values[i] = values[i] * 0.01f + 0.5f;  // far from zero
    std::vector<double> mean(count, 0);
    double shifts = 0, squares = 0, turns_together = 0;
    for (int trial = 0; trial < kTrials; ++trial) {
      const Encoding encoding{Rounding::kShift, 21, static_cast<uint64_t>(trial), 0};
      const std::vector<float> decoded = Decode(codec, Encode(codec, encoding, values), count);
      double phase[2] = {};
      for (const size_t block : {size_t{0}, size_t{1}}) {
        const size_t begin = block * codec.block, end = std::min(count, begin + codec.block);
        const auto of = BlockOf(codec, values, begin);
        const auto [low, high] = std::minmax_element(of.begin(), of.end());
        const double step = (static_cast<double>(*high) - *low) / Extent(codec.kind);
        // How far the lattice is shifted from the one through the smallest value, in steps: [-1/2, 1/2).
        const auto phase_of = [&](size_t i) {
          const double x = (static_cast<double>(decoded[i]) - *low) / step;
          return x - std::round(x);
        };
        phase[block] = phase_of(begin);
        for (size_t i = begin; i < end; ++i) {
          mean[i] += decoded[i] / double{kTrials};
          ASSERT_LE(std::fabs(static_cast<double>(decoded[i]) - values[i]), 0.5 * step * 1.001) << i;
          double off = std::fabs(phase_of(i) - phase[block]);
          off = std::min(off, 1 - off);
          ASSERT_LE(off, 1e-2) << "element " << i << " lies on another lattice";
        }
      }
      shifts += phase[0] / kTrials;
      squares += phase[0] * phase[0] / kTrials;
      turns_together += phase[0] * phase[1] / kTrials;
    }
    // Uniform: mean 0, variance 1/12, and blocks draw apart; four standard deviations.
    EXPECT_NEAR(shifts, 0, 4 * std::sqrt(1.0 / 12 / kTrials));
    EXPECT_NEAR(squares, 1.0 / 12, 4 * std::sqrt(1.0 / 180 / kTrials));
    EXPECT_NEAR(turns_together, 0, 4.0 / 12 / std::sqrt(double{kTrials}));
    for (size_t i = 0; i < count; ++i) {
      const auto of = BlockOf(codec, values, i);
      const auto [low, high] = std::minmax_element(of.begin(), of.end());
      const double step = (static_cast<double>(*high) - *low) / Extent(codec.kind);
      // An error is uniform over a step; six standard deviations of the mean.
      ASSERT_NEAR(mean[i], values[i], 6 * step * std::sqrt(1.0 / 12 / kTrials)) << codec.name << " " << i;
    }
  }
}

TEST(CodecTest, WhatIsNotFiniteMakesItsBlockNan) {
  for (const Codec& codec : Codecs()) {
    for (const float bad : {kInf, -kInf, std::numeric_limits<float>::quiet_NaN()}) {
      for (const size_t at : {size_t{0}, codec.block + 5, 3 * codec.block + 1}) {
        for (const Rounding rounding : RoundingsOf(codec)) {
          std::vector<float> values = Random(3 * codec.block + 2, 4), residual(values.size(), 0);
          values[at] = bad;
          const auto decoded =
              Decode(codec, Encode(codec, {rounding, 1, 1, 1}, values, residual.data()), values.size());
          for (size_t i = 0; i < values.size(); ++i) {
            ASSERT_EQ(std::isnan(decoded[i]), i / codec.block == at / codec.block) << codec.name << " " << i;
            ASSERT_TRUE(std::isfinite(residual[i])) << "an infinity would stay for ever";
          }
        }
      }
    }
  }
}

TEST(CodecTest, ZerosTheLargestAndTheSmallest) {
  for (const Codec& codec : Codecs()) {
    for (const Rounding rounding : RoundingsOf(codec)) {
      const Encoding encoding{rounding, 1, 1, 1};
      for (const float value : Decode(codec, Encode(codec, encoding, std::vector<float>(300, 0.0f)), 300)) {
        ASSERT_EQ(value, 0.0f);
      }
      constexpr float kMax = std::numeric_limits<float>::max();
      std::vector<float> values(300, kMax);
      values[7] = -kMax;
      const auto decoded = Decode(codec, Encode(codec, encoding, values), 300);
      for (size_t i = 0; i < 300; ++i) ASSERT_NEAR(decoded[i] / values[i], 1, 1e-6) << codec.name;
      // Denormals: what f32 cannot hold is an error of no more than 2^-140.
      for (int exponent = -149; exponent < -90; ++exponent) {
        const float largest = std::ldexp(1.0f, exponent);
        std::vector<float> small = Random(300, 6, 1);
        for (float& value : small) value = std::clamp(value / 4, -1.0f, 1.0f) * largest;
        const auto got = Decode(codec, Encode(codec, encoding, small), 300);
        for (size_t i = 0; i < 300; ++i) {
          ASSERT_LE(std::fabs(static_cast<double>(got[i]) - small[i]),
                    2 * codec.max_error * Largest(codec, small, i) * 1.00001 + 0x1p-140)
              << codec.name << " " << largest;
        }
      }
    }
  }
}

TEST(CodecTest, BFloat16IsTheSameAsItsFloats) {
  for (const Codec& codec : Codecs()) {
    for (const size_t count : kSizes) {
      const std::vector<float> values = Random(count, 8);
      std::vector<BFloat16> narrow(count);
      std::vector<float> wide(count);
      for (size_t i = 0; i < count; ++i) wide[i] = static_cast<float>(narrow[i] = BFloat16(values[i]));
      std::vector<std::byte> wire(codec.EncodedBytes(count));
      codec.Encode({}, narrow.data(), DataType::kBF16, count, 0, nullptr, wire.data());
      ASSERT_EQ(wire, Encode(codec, {}, wide));
      std::vector<BFloat16> back(count);
      codec.Decode(wire.data(), count, back.data(), DataType::kBF16);
      const std::vector<float> floats = Decode(codec, wire, count);
      std::vector<float> sums(count, 3);
      codec.DecodeAdd(wire.data(), count, sums.data());
      for (size_t i = 0; i < count; ++i) {
        ASSERT_EQ(back[i].bits, BFloat16(floats[i]).bits);
        ASSERT_EQ(sums[i], floats[i] + 3);
      }
    }
  }
}

TEST(CodecTest, ErrorFeedbackLosesNothing) {
  constexpr int kRounds = 64;
  for (const Codec& codec : Codecs()) {
    const size_t count = 2 * codec.block + 31;
    const std::vector<float> values = Random(count, 2);
    std::vector<float> residual(count, 0);
    std::vector<double> sum(count, 0);
    for (int round = 0; round < kRounds; ++round) {
      const auto decoded = Decode(codec, Encode(codec, {}, values, residual.data()), count);
      for (size_t i = 0; i < count; ++i) sum[i] += decoded[i];
    }
    for (size_t i = 0; i < count; ++i) {
      // What was sent and what is left is what there was.
      ASSERT_NEAR(sum[i] + residual[i], double{kRounds} * values[i], 1e-3) << codec.name;
      ASSERT_NEAR(sum[i] / kRounds, values[i], 3 * codec.max_error * Largest(codec, values, i) / kRounds)
          << codec.name;
    }
  }
}

TEST(CodecTest, SizesAndNames) {
  const Codec* int8 = FindCodec("int8");
  ASSERT_NE(int8, nullptr);
  EXPECT_EQ(int8->EncodedBytes(int8->block), int8->block + 4);
  EXPECT_LE(static_cast<double>(int8->EncodedBytes(1 << 20)), 0.27 * 4 * (1 << 20));
  EXPECT_EQ(FindCodec("int4")->EncodedBytes(3), 6u);
  EXPECT_EQ(FindCodec("int9"), nullptr);
  for (const Codec& codec : Codecs()) {
    EXPECT_EQ(FindCodec(codec.name), &codec);
    EXPECT_EQ(&GetCodec(codec.kind), &codec);
    EXPECT_EQ(codec.EncodedBytes(0), 0u);
  }
}

}  // namespace
}  // namespace cohort::comm
