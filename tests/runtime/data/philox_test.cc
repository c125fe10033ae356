#include "runtime/random/philox.h"

#include "gtest/gtest.h"

namespace cohort::runtime {
namespace {

// The known answers of Random123 (kat_vectors, philox4x32 10).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, EveryArgumentMatters) {
  const PhiloxCounter base = RandomBits(1, RandomPurpose::kDropout, 2, 3);
  EXPECT_EQ(base, RandomBits(1, RandomPurpose::kDropout, 2, 3));
  EXPECT_NE(base, RandomBits(1 + (uint64_t{1} << 40), RandomPurpose::kDropout, 2, 3));
  EXPECT_NE(base, RandomBits(1, RandomPurpose::kSampling, 2, 3));
  EXPECT_NE(base, RandomBits(1, RandomPurpose::kDropout, 2 + (uint64_t{1} << 40), 3));
  EXPECT_NE(base, RandomBits(1, RandomPurpose::kDropout, 2, 3 + (uint64_t{1} << 40)));
}

TEST(Philox, UniformAndNormalMoments) {
  double uniform = 0, normal = 0, square = 0;
  constexpr int kCount = 20000;
  for (int i = 0; i < kCount; ++i) {
    const PhiloxCounter bits = RandomBits(5, RandomPurpose::kWeightInit, 0, static_cast<uint64_t>(i));
    const float u = UniformFloat(bits[0]);
    ASSERT_TRUE(u >= 0 && u < 1);
    uniform += u + UniformDouble(bits[1], bits[2]);
    const auto [a, b] = NormalPair(bits[2], bits[3]);
    normal += a + b;
    square += a * a + b * b;
  }
  EXPECT_NEAR(uniform / (2 * kCount), 0.5, 0.01);
  EXPECT_NEAR(normal / (2 * kCount), 0, 0.02);
  EXPECT_NEAR(square / (2 * kCount), 1, 0.03);
  EXPECT_LT(UniformFloat(0xFFFFFFFFu), 1.0f);
  EXPECT_LT(UniformDouble(0xFFFFFFFFu, 0xFFFFFFFFu), 1.0);
  EXPECT_TRUE(std::isfinite(NormalPair(0, 0)[0]));
}

}  // namespace
}  // namespace cohort::runtime
