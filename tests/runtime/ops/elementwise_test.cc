// Elementwise operations, random numbers and AdamW against the reference.
#include <cstring>

#include "tests/runtime/ops/compare.h"

namespace cohort::runtime {
namespace {

constexpr int64_t kSizes[] = {0, 1, 15, 16, 17, 1003, 50000};

class OpsElementwiseTest : public OpsTest {};

TEST_P(OpsElementwiseTest, AddScaleAccumulate) {
  for (DataType dtype : kComputeTypes) {
    for (int threads : thread_counts()) {
      SetCpuThreads(threads);
      for (int64_t n : kSizes) {
        const Twin a = Random({n}, dtype), b = Random({n}, dtype), c = Output({n}, dtype);
        tested().Add(a.tested, b.tested, c.tested);
        reference().Add(a.reference, b.reference, c.reference);
        ExpectTwin(c, dtype, "Add");
        Twin alias = Clone(a);
        tested().Add(alias.tested, b.tested, alias.tested);
        ExpectSameBits(alias.tested, c.tested, "Add in place");

        tested().Scale(alias.tested, -0.37);
        reference().Scale(c.reference, -0.37);
        ExpectTwin({alias.tested, c.reference}, dtype, "Scale");

        for (DataType sum_type : {DataType::kF32, dtype}) {
          const Twin sum = Random({n}, sum_type);
          tested().Accumulate(a.tested, 1.7, sum.tested);
          reference().Accumulate(a.reference, 1.7, sum.reference);
          ExpectTwin(sum, sum_type, "Accumulate");
        }
      }
    }
  }
}

TEST_P(OpsElementwiseTest, AccumulateTakesAnyFloats) {
  for (DataType from : {DataType::kF32, DataType::kBF16, DataType::kF16, DataType::kF64}) {
    for (DataType to : {DataType::kF32, DataType::kBF16, DataType::kF16, DataType::kF64}) {
      const Twin x = Random({1003}, from), y = Random({1003}, to);
      tested().Accumulate(x.tested, 0.25, y.tested);
      reference().Accumulate(x.reference, 0.25, y.reference);
      ExpectTwin(y, to == DataType::kF16 ? DataType::kBF16 : to, "Accumulate");
    }
  }
}

// Every pair of types gives the same bits on both devices, at values where rounding is hard.
TEST_P(OpsElementwiseTest, CopyRoundsOnceAndAlike) {
  std::vector<double> values = {0.0,
                                -0.0,
                                1.0,
                                1.00390625,
                                1.01171875,
                                1.00390625 + 1e-12,
                                65504,
                                65520,
                                1e-8,
                                -3e-39,
                                3.4e38,
                                1e39,
                                INFINITY,
                                -INFINITY,
                                0.1,
                                1.0 + 0x1p-24,
                                1.0 + 0x1p-24 + 0x1p-50};
  for (int i = 0; i < 1000; ++i)
    values.push_back(std::ldexp(static_cast<double>(generator_()), -70 + i % 20));
  const Shape shape = {static_cast<int64_t>(values.size())};
  constexpr DataType kFloats[] = {DataType::kF32, DataType::kBF16, DataType::kF16, DataType::kF64};
  for (DataType from : kFloats) {
    for (DataType to : kFloats) {
      const Tensor x = Tensor::FromHost(tested_device(), shape, from, values);
      const Tensor on_tested = x.To(tested_device(), to), on_reference = x.To(ReferenceDevice(), to);
      std::vector<char> bits(on_tested.bytes());
      tested_device().CopyToHost(on_tested, bits.data());
      EXPECT_EQ(std::memcmp(bits.data(), on_reference.raw(), bits.size()), 0)
          << Name(from) << " to " << Name(to);
    }
  }
  // A double halfway between two bf16 but for its last bits: rounding to float first would go the wrong way.
  const Tensor tie = Tensor::FromHost(tested_device(), {2}, DataType::kBF16,
                                      std::vector<double>{1.00390625 + 1e-12, 1.01171875 - 1e-12});
  EXPECT_EQ(ToHost(tie), (std::vector<double>{1.0078125, 1.0078125}));
  const Tensor nan = Tensor::FromHost(tested_device(), {1}, DataType::kF32, std::vector<double>{NAN});
  EXPECT_TRUE(std::isnan(ToHost(nan.To(tested_device(), DataType::kBF16))[0]));
}

TEST_P(OpsElementwiseTest, FillEveryType) {
#define COHORT_X(enumerator, type, name, accumulator)                            \
  for (double value : {0.0, 3.0}) {                                              \
    const Tensor x = Tensor::Empty(tested_device(), {37}, DataType::enumerator); \
    tested().Fill(x, value);                                                     \
    EXPECT_EQ(ToHost(x), std::vector<double>(37, value)) << name;                \
  }
  COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
}

TEST_P(OpsElementwiseTest, SumSquaresDoesNotDependOnThreads) {
  for (DataType dtype : kComputeTypes) {
    for (int64_t n : {int64_t{0}, int64_t{17}, int64_t{300001}}) {
      const Twin x = Random({n}, dtype);
      const Tensor want = Tensor::Zeros(ReferenceDevice(), {1}, DataType::kF64);
      reference().SumSquares(x.reference, want);
      std::vector<double> sums;
      for (int threads : thread_counts()) {
        SetCpuThreads(threads);
        const Tensor got = Tensor::Zeros(tested_device(), {1}, DataType::kF64);
        tested().SumSquares(x.tested, got);
        ExpectClose(got, want, DataType::kF32, "SumSquares");
        sums.push_back(ToHost(got)[0]);
        tested().SumSquares(x.tested, got);
        EXPECT_EQ(ToHost(got)[0], 2 * sums.back()) << "SumSquares accumulates";
      }
      for (double sum : sums) EXPECT_EQ(sum, sums[0]);
    }
  }
}

TEST_P(OpsElementwiseTest, NormalNumbersAreTheSameOnEveryDeviceAndInEverySplit) {
  constexpr int64_t kCount = 100003;
  const Tensor whole = Tensor::Empty(ReferenceDevice(), {kCount}, DataType::kF32);
  reference().FillNormal(whole, 42, 7, 11, 0.02);
  for (int threads : thread_counts()) {
    SetCpuThreads(threads);
    for (int64_t split : {int64_t{0}, int64_t{1}, int64_t{4099}, kCount}) {
      const Tensor parts = Tensor::Empty(tested_device(), {kCount}, DataType::kF32);
      tested().FillNormal(parts.Slice(0, split), 42, 7, 11, 0.02);
      tested().FillNormal(parts.Slice(split, kCount), 42, 7, 11 + split, 0.02);
      ExpectSameBits(parts, whole, "FillNormal");
    }
  }
  const std::vector<double> values = ToHost(whole);
  double sum = 0, squares = 0, fourth = 0;
  for (double value : values) {
    const double z = value / 0.02;
    sum += z;
    squares += z * z;
    fourth += z * z * z * z;
  }
  EXPECT_NEAR(sum / kCount, 0, 5 / std::sqrt(kCount));
  EXPECT_NEAR(squares / kCount, 1, 5 * std::sqrt(2.0 / kCount));
  EXPECT_NEAR(fourth / kCount, 3, 5 * std::sqrt(96.0 / kCount));
  const Tensor other = Tensor::Empty(tested_device(), {kCount}, DataType::kF32);
  tested().FillNormal(other, 42, 8, 11, 0.02);
  EXPECT_NE(ToHost(other), values) << "another purpose, the same numbers";
}

TEST_P(OpsElementwiseTest, AdamW) {
  for (DataType dtype : kComputeTypes) {
    for (int threads : thread_counts()) {
      SetCpuThreads(threads);
      for (int64_t n : kSizes) {
        const Twin master = Random({n}, DataType::kF32), m = Random({n}, DataType::kF32, 0);
        const Twin v = Clone(m), value = Output({n}, dtype);
        AdamWOptions options{
            .lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .step = 1};
        options.grad_scale = 0.5;
        for (; options.step <= 3; ++options.step) {
          const Twin grad = Random({n}, DataType::kF32);
          tested().AdamW(master.tested, grad.tested, m.tested, v.tested, value.tested, options);
          reference().AdamW(master.reference, grad.reference, m.reference, v.reference, value.reference,
                            options);
        }
        ExpectTwin(master, DataType::kF32, "master");
        ExpectTwin(m, DataType::kF32, "m");
        ExpectTwin(v, DataType::kF32, "v");
        ExpectTwin(value, dtype, "value");
        const Twin grad = Random({n}, DataType::kF32);
        tested().AdamW(master.tested, grad.tested, m.tested, v.tested, Tensor(), options);
        reference().AdamW(master.reference, grad.reference, m.reference, v.reference, Tensor(), options);
        ExpectTwin(master, DataType::kF32, "master without value");
      }
    }
  }
}

COHORT_ON_EVERY_DEVICE(OpsElementwiseTest);

}  // namespace
}  // namespace cohort::runtime
