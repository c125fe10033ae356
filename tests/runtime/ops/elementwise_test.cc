// Elementwise operations, random numbers and AdamW against the reference.
#include <cstring>

#include "tests/runtime/ops/compare.h"

namespace cohort::runtime {
namespace {

constexpr int64_t kSizes[] = {0, 1, 15, 16, 17, 1003, 50000};

class OpsElementwiseTest : public OpsTest {};

TEST_F(OpsElementwiseTest, AddScaleAccumulate) {
  for (DataType dtype : kComputeTypes) {
    for (int threads : kThreadCounts) {
      SetCpuThreads(threads);
      for (int64_t n : kSizes) {
        const Twin a = Random({n}, dtype), b = Random({n}, dtype), c = Output({n}, dtype);
        cpu().Add(a.cpu, b.cpu, c.cpu);
        reference().Add(a.reference, b.reference, c.reference);
        ExpectTwin(c, dtype, "Add");
        Twin alias = Clone(a);
        cpu().Add(alias.cpu, b.cpu, alias.cpu);
        ExpectSameBits(alias.cpu, c.cpu, "Add in place");

        cpu().Scale(alias.cpu, -0.37);
        reference().Scale(c.reference, -0.37);
        ExpectTwin({alias.cpu, c.reference}, dtype, "Scale");

        for (DataType sum_type : {DataType::kF32, dtype}) {
          const Twin sum = Random({n}, sum_type);
          cpu().Accumulate(a.cpu, 1.7, sum.cpu);
          reference().Accumulate(a.reference, 1.7, sum.reference);
          ExpectTwin(sum, sum_type, "Accumulate");
        }
      }
    }
  }
}

TEST_F(OpsElementwiseTest, AccumulateTakesAnyFloats) {
  for (DataType from : {DataType::kF32, DataType::kBF16, DataType::kF16, DataType::kF64}) {
    for (DataType to : {DataType::kF32, DataType::kBF16, DataType::kF16, DataType::kF64}) {
      const Twin x = Random({1003}, from), y = Random({1003}, to);
      cpu().Accumulate(x.cpu, 0.25, y.cpu);
      reference().Accumulate(x.reference, 0.25, y.reference);
      ExpectTwin(y, to == DataType::kF16 ? DataType::kBF16 : to, "Accumulate");
    }
  }
}

// Every pair of types gives the same bits on both devices, at values where rounding is hard.
TEST_F(OpsElementwiseTest, CopyRoundsOnceAndAlike) {
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
      const Tensor x = Tensor::FromHost(CpuDevice(), shape, from, values);
      const Tensor on_cpu = x.To(CpuDevice(), to), on_reference = x.To(ReferenceDevice(), to);
      EXPECT_EQ(std::memcmp(on_cpu.raw(), on_reference.raw(), on_cpu.bytes()), 0)
          << Name(from) << " to " << Name(to);
    }
  }
  // A double halfway between two bf16 but for its last bits: rounding to float first would go the wrong way.
  const Tensor tie = Tensor::FromHost(CpuDevice(), {2}, DataType::kBF16,
                                      std::vector<double>{1.00390625 + 1e-12, 1.01171875 - 1e-12});
  EXPECT_EQ(ToHost(tie), (std::vector<double>{1.0078125, 1.0078125}));
  const Tensor nan = Tensor::FromHost(CpuDevice(), {1}, DataType::kF32, std::vector<double>{NAN});
  EXPECT_TRUE(std::isnan(ToHost(nan.To(CpuDevice(), DataType::kBF16))[0]));
}

TEST_F(OpsElementwiseTest, FillEveryType) {
#define COHORT_X(enumerator, type, name, accumulator)                        \
  for (double value : {0.0, 3.0}) {                                          \
    const Tensor x = Tensor::Empty(CpuDevice(), {37}, DataType::enumerator); \
    cpu().Fill(x, value);                                                    \
    EXPECT_EQ(ToHost(x), std::vector<double>(37, value)) << name;            \
  }
  COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
}

TEST_F(OpsElementwiseTest, SumSquaresDoesNotDependOnThreads) {
  for (DataType dtype : kComputeTypes) {
    for (int64_t n : {int64_t{0}, int64_t{17}, int64_t{300001}}) {
      const Twin x = Random({n}, dtype);
      const Tensor want = Tensor::Zeros(ReferenceDevice(), {1}, DataType::kF64);
      reference().SumSquares(x.reference, want);
      std::vector<double> sums;
      for (int threads : kThreadCounts) {
        SetCpuThreads(threads);
        const Tensor got = Tensor::Zeros(CpuDevice(), {1}, DataType::kF64);
        cpu().SumSquares(x.cpu, got);
        ExpectClose(got, want, DataType::kF32, "SumSquares");
        sums.push_back(ToHost(got)[0]);
        cpu().SumSquares(x.cpu, got);
        EXPECT_EQ(ToHost(got)[0], 2 * sums.back()) << "SumSquares accumulates";
      }
      EXPECT_EQ(sums[0], sums[1]);
      EXPECT_EQ(sums[0], sums[2]);
    }
  }
}

TEST_F(OpsElementwiseTest, NormalNumbersAreTheSameOnEveryDeviceAndInEverySplit) {
  constexpr int64_t kCount = 100003;
  const Tensor whole = Tensor::Empty(ReferenceDevice(), {kCount}, DataType::kF32);
  reference().FillNormal(whole, 42, 7, 11, 0.02);
  for (int threads : kThreadCounts) {
    SetCpuThreads(threads);
    for (int64_t split : {int64_t{0}, int64_t{1}, int64_t{4099}, kCount}) {
      const Tensor parts = Tensor::Empty(CpuDevice(), {kCount}, DataType::kF32);
      cpu().FillNormal(parts.Slice(0, split), 42, 7, 11, 0.02);
      cpu().FillNormal(parts.Slice(split, kCount), 42, 7, 11 + split, 0.02);
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
  const Tensor other = Tensor::Empty(CpuDevice(), {kCount}, DataType::kF32);
  cpu().FillNormal(other, 42, 8, 11, 0.02);
  EXPECT_NE(ToHost(other), values) << "another purpose, the same numbers";
}

TEST_F(OpsElementwiseTest, AdamW) {
  for (DataType dtype : kComputeTypes) {
    for (int threads : kThreadCounts) {
      SetCpuThreads(threads);
      for (int64_t n : kSizes) {
        const Twin master = Random({n}, DataType::kF32), m = Random({n}, DataType::kF32, 0);
        const Twin v = Clone(m), value = Output({n}, dtype);
        AdamWOptions options{
            .lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .step = 1};
        options.grad_scale = 0.5;
        for (; options.step <= 3; ++options.step) {
          const Twin grad = Random({n}, DataType::kF32);
          cpu().AdamW(master.cpu, grad.cpu, m.cpu, v.cpu, value.cpu, options);
          reference().AdamW(master.reference, grad.reference, m.reference, v.reference, value.reference,
                            options);
        }
        ExpectTwin(master, DataType::kF32, "master");
        ExpectTwin(m, DataType::kF32, "m");
        ExpectTwin(v, DataType::kF32, "v");
        ExpectTwin(value, dtype, "value");
        const Twin grad = Random({n}, DataType::kF32);
        cpu().AdamW(master.cpu, grad.cpu, m.cpu, v.cpu, Tensor(), options);
        reference().AdamW(master.reference, grad.reference, m.reference, v.reference, Tensor(), options);
        ExpectTwin(master, DataType::kF32, "master without value");
      }
    }
  }
}

}  // namespace
}  // namespace cohort::runtime
