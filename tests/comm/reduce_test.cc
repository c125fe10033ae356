// Reductions of every type and operation against plain double-precision loops.
#include "comm/reduce.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <concepts>
#include <limits>
#include <random>
#include <vector>

namespace cohort::comm {
namespace {

constexpr ReduceOp kOps[] = {ReduceOp::kSum, ReduceOp::kMin, ReduceOp::kMax, ReduceOp::kProduct};

double Apply(ReduceOp op, double a, double b) {
  switch (op) {
    case ReduceOp::kSum:
      return a + b;
    case ReduceOp::kMin:
      return std::min(a, b);
    case ReduceOp::kMax:
      return std::max(a, b);
    case ReduceOp::kProduct:
      return a * b;
  }
  return 0;
}

template <typename T>
double Widen(T value) {
  if constexpr (std::is_arithmetic_v<T>) {
    return static_cast<double>(value);
  } else {
    return static_cast<double>(static_cast<float>(value));
  }
}

template <typename T>
T Narrow(double value) {
  if constexpr (std::is_arithmetic_v<T>) {
    return static_cast<T>(value);
  } else {
    return T(static_cast<float>(value));
  }
}

template <typename T>
void CheckType() {
  std::mt19937 random(7);
  for (const ReduceOp op : kOps) {
    const ReduceFunction reduce = FindReduce(DataTypeOf<T>(), op);
    for (const size_t count : {0, 1, 7, 8, 9, 31, 64, 1000}) {
      std::vector<T> a(count), b(count), out(count + 1, Narrow<T>(5));
      for (size_t i = 0; i < count; ++i) {
        // Small whole numbers: exact in every type; unsigned ones stay positive.
        a[i] = Narrow<T>(random() % 9);
        b[i] = Narrow<T>(random() % 9);
      }
      const auto bytes = [](auto& v) { return reinterpret_cast<std::byte*>(v.data()); };
      reduce(bytes(a), bytes(b), bytes(out), count);
      for (size_t i = 0; i < count; ++i) ASSERT_EQ(Widen(out[i]), Apply(op, Widen(a[i]), Widen(b[i])));
      ASSERT_EQ(Widen(out[count]), 5);
      // Into either argument.
      std::vector<T> left = a, right = b;
      reduce(bytes(left), bytes(b), bytes(left), count);
      reduce(bytes(a), bytes(right), bytes(right), count);
      for (size_t i = 0; i < count; ++i) {
        ASSERT_EQ(Widen(left[i]), Widen(out[i]));
        ASSERT_EQ(Widen(right[i]), Widen(out[i]));
      }
    }
  }
}

TEST(Reduce, EveryTypeAndOperation){
#define COHORT_X(enumerator, type, name, accumulator) \
  {                                                   \
    SCOPED_TRACE(name);                               \
    CheckType<type>();                                \
  }
    COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
}

TEST(Reduce, SixteenBitSumsAreRoundedOnce) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  constexpr size_t kCount = 4096;
  std::vector<BFloat16> a(kCount), b(kCount), sum(kCount);
  std::vector<Float16> c(kCount), d(kCount), half_sum(kCount);
  for (size_t i = 0; i < kCount; ++i) {
    a[i] = BFloat16(normal(random));
    b[i] = BFloat16(normal(random));
    c[i] = Float16(normal(random));
    d[i] = Float16(normal(random));
  }
  const auto bytes = [](auto& v) { return reinterpret_cast<std::byte*>(v.data()); };
  FindReduce(DataType::kBF16, ReduceOp::kSum)(bytes(a), bytes(b), bytes(sum), kCount);
  FindReduce(DataType::kF16, ReduceOp::kSum)(bytes(c), bytes(d), bytes(half_sum), kCount);
  for (size_t i = 0; i < kCount; ++i) {
    EXPECT_EQ(sum[i].bits, BFloat16(static_cast<float>(a[i]) + static_cast<float>(b[i])).bits);
    EXPECT_EQ(half_sum[i].bits, Float16(static_cast<float>(c[i]) + static_cast<float>(d[i])).bits);
  }
}

TEST(Reduce, FloatsCommuteToTheLastBit) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(),
                  kInf = std::numeric_limits<float>::infinity();
  const std::vector<float> special = {0.0f, -0.0f, 1.0f, -1.0f, kInf, -kInf, kNan, 1e-40f, -1e-40f};
  for (const ReduceOp op : {ReduceOp::kMin, ReduceOp::kMax}) {
    const ReduceFunction reduce = FindReduce(DataType::kF32, op);
    for (const float x : special) {
      for (const float y : special) {
        float one = 0, other = 0;
        const auto at = [](const float& v) { return reinterpret_cast<const std::byte*>(&v); };
        reduce(at(x), at(y), reinterpret_cast<std::byte*>(&one), 1);
        reduce(at(y), at(x), reinterpret_cast<std::byte*>(&other), 1);
        EXPECT_EQ(std::bit_cast<uint32_t>(one), std::bit_cast<uint32_t>(other)) << x << " " << y;
        if (std::isnan(x) || std::isnan(y)) {
          EXPECT_TRUE(std::isnan(one)) << x << " " << y;
        }
      }
    }
  }
}

TEST(Reduce, IntegersWrapAround) {
  const int32_t big = std::numeric_limits<int32_t>::max();
  const int32_t one = 1;
  int32_t out = 0;
  const auto at = [](const int32_t& v) { return reinterpret_cast<const std::byte*>(&v); };
  FindReduce(DataType::kI32, ReduceOp::kSum)(at(big), at(one), reinterpret_cast<std::byte*>(&out), 1);
  EXPECT_EQ(out, std::numeric_limits<int32_t>::min());
}

}  // namespace
}  // namespace cohort::comm
