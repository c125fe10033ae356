// Products with few rows against the reference's matrix product.
#include <array>
#include <string>

#include "runtime/ops/cpu/policy.h"
#include "runtime/ops/cpu/skinny_matmul.h"
#include "tests/runtime/ops/compare.h"

namespace cohort::runtime {
namespace {

class SkinnyMatMulTest : public OpsFixture {};

constexpr std::array<int64_t, 2> kWeights[] = {{1, 1},    {15, 32},    {16, 64}, {50, 96},
                                               {333, 33}, {128, 1000}, {96, 0}};

TEST_F(SkinnyMatMulTest, MatchesTheReference) {
  for (DataType dtype : kComputeTypes) {
    for (const auto& [n, k] : kWeights) {
      const Twin w = Random({n, k}, dtype);
      for (int64_t m : {1, 2, 3, 4, 5, 16, 17, 31, 32}) {
        const Twin x = Random({m, k}, dtype);
        for (DataType out : {dtype, DataType::kF32}) {
          const Twin y = Output({m, n}, out);
          reference().MatMul(x.reference, w.reference, y.reference, {.transpose_b = true});
          for (int threads : kThreadCounts) {
            SetCpuThreads(threads);
            ASSERT_TRUE(SkinnyMatMul(x.tested, w.tested, y.tested));
            const std::string what =
                std::to_string(m) + " x " + std::to_string(k) + " x " + std::to_string(n);
            ExpectTwin(y, dtype, what.c_str());
          }
        }
      }
    }
  }
}

TEST_F(SkinnyMatMulTest, RefusesWhatItDoesNotTake) {
  const Twin w = Random({8, 8}, DataType::kF32), y = Output({1, 8}, DataType::kF32);
  EXPECT_FALSE(
      SkinnyMatMul(Random({0, 8}, DataType::kF32).tested, w.tested, Output({0, 8}, DataType::kF32).tested));
  EXPECT_FALSE(SkinnyMatMul(Random({1, 8}, DataType::kBF16).tested, w.tested, y.tested));
  const int64_t many = cpu_policy::kSkinnyRows + 1;
  EXPECT_FALSE(SkinnyMatMul(Random({many, 8}, DataType::kF32).tested, w.tested,
                            Output({many, 8}, DataType::kF32).tested));
}

TEST_F(SkinnyMatMulTest, GroupsMatchTheReference) {
  for (DataType dtype : kComputeTypes) {
    for (const auto& [n, k] : kWeights) {
      const std::vector<int32_t> starts = {0, 3, 3, 20, 21, 53};
      const int64_t groups = starts.size() - 1, rows = starts.back();
      const Twin x = Random({rows, k}, dtype), w = Random({groups, n, k}, dtype),
                 y = Output({rows, n}, dtype);
      const Twin offsets = FromIndices({groups + 1}, starts);
      reference().GroupedMatMul(x.reference, offsets.reference, w.reference, false, y.reference);
      for (int threads : kThreadCounts) {
        SetCpuThreads(threads);
        ASSERT_TRUE(SkinnyGroupedMatMul(x.tested, offsets.tested, w.tested, y.tested));
        ExpectTwin(y, dtype, "grouped");
      }
    }
  }
  // A group of many rows is left to others.
  const Twin x = Random({40, 8}, DataType::kF32), w = Random({2, 8, 8}, DataType::kF32),
             y = Output({40, 8}, DataType::kF32), untouched = Output({36, 8}, DataType::kF32);
  const Twin offsets = FromIndices({3}, {0, 4, 40});
  reference().GroupedMatMul(x.reference, offsets.reference, w.reference, false, y.reference);
  ASSERT_TRUE(SkinnyGroupedMatMul(x.tested, offsets.tested, w.tested, y.tested));
  ExpectClose(y.tested.Slice(0, 4), y.reference.Slice(0, 4), DataType::kF32, "the small group");
  ExpectSameBits(y.tested.Slice(4, 40), untouched.tested, "the large group");
  EXPECT_FALSE(
      SkinnyGroupedMatMul(x.tested, offsets.tested, Random({2, 8, 8}, DataType::kBF16).tested, y.tested));
}

TEST_F(SkinnyMatMulTest, BitsDependOnNeitherThreadsNorNeighbours) {
  for (DataType dtype : kComputeTypes) {
    const Twin x = Random({32, 160}, dtype), w = Random({100, 160}, dtype);
    const Twin all = Output({32, 100}, dtype), few = Output({7, 100}, dtype);
    SetCpuThreads(1);
    ASSERT_TRUE(SkinnyMatMul(x.tested, w.tested, all.tested));
    for (int threads : kThreadCounts) {
      SetCpuThreads(threads);
      ASSERT_TRUE(SkinnyMatMul(x.tested.Slice(0, 7), w.tested, few.tested));
      ExpectSameBits(all.tested.Slice(0, 7), few.tested, "seven rows of 32");
    }
  }
}

}  // namespace
}  // namespace cohort::runtime
