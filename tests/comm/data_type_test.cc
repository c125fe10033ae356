#include "comm/data_type.h"

#include <bit>
#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace cohort {
namespace {

// The value of a binary16 by its definition (IEEE 754, section 3.4).
double ValueOf(uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1f, mantissa = bits & 0x3ff;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

TEST(Float16Test, EveryFiniteValueWidensExactlyAndComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    if (((bits >> 10) & 0x1f) == 31) continue;
    Float16 half;
    half.bits = static_cast<uint16_t>(bits);
    const float wide = static_cast<float>(half);
    ASSERT_EQ(wide, ValueOf(half.bits)) << bits;
    ASSERT_EQ(Float16(wide).bits, bits);
  }
}

TEST(Float16Test, WhatLiesBetweenTwoValuesRoundsToTheNearestAndTiesToEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const double low = ValueOf(static_cast<uint16_t>(bits)), high = ValueOf(static_cast<uint16_t>(bits + 1));
    const auto middle = static_cast<float>((low + high) / 2);  // exact in f32
    const float infinity = std::numeric_limits<float>::infinity();
    ASSERT_EQ(Float16(middle).bits, bits + (bits & 1)) << bits;
    ASSERT_EQ(Float16(std::nextafter(middle, 0.0f)).bits, bits);
    ASSERT_EQ(Float16(std::nextafter(middle, infinity)).bits, bits + 1);
    ASSERT_EQ(Float16(-middle).bits, 0x8000u | (bits + (bits & 1)));
  }
}

TEST(Float16Test, LargeInfiniteAndNan) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Float16(65519.996f).bits, 0x7bff);  // rounds down to the largest, 65504
  EXPECT_EQ(Float16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(Float16(1e30f).bits, 0x7c00);
  EXPECT_EQ(Float16(-infinity).bits, 0xfc00);
  EXPECT_EQ(static_cast<float>(Float16(infinity)), infinity);
  EXPECT_TRUE(std::isnan(static_cast<float>(Float16(std::nanf("")))));
}

TEST(BFloat16Test, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(BFloat16(1.0f).bits, 0x3f80);
  EXPECT_EQ(BFloat16(std::bit_cast<float>(0x3f808000u)).bits, 0x3f80);  // a tie, to even
  EXPECT_EQ(BFloat16(std::bit_cast<float>(0x3f818000u)).bits, 0x3f82);
  EXPECT_EQ(BFloat16(std::bit_cast<float>(0x3f808001u)).bits, 0x3f81);
  EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(DataTypeTest, NamesAndSizesAreThoseOfTheTable) {
  for (const char* name : {"f32", "bf16", "f16", "f64", "i8", "u8", "i32", "i64"}) {
    const auto dtype = ParseDataType(name);
    ASSERT_TRUE(dtype.has_value()) << name;
    EXPECT_STREQ(Name(*dtype), name);
  }
  EXPECT_EQ(SizeOf(DataType::kBF16), 2u);
  EXPECT_EQ(SizeOf(DataType::kF64), 8u);
  EXPECT_EQ(ParseDataType("float"), std::nullopt);
}

}  // namespace
}  // namespace cohort
