// What deterministic training needs of operations: bits that do not depend on threads, on where a range of
// elements begins, or on what else is computed in the same call.
#include <cmath>

#include "runtime/ops/exact_squares.h"
#include "runtime/ops/fixed_tiles.h"
#include "tests/runtime/ops/compare.h"

namespace cohort::runtime {
namespace {

class OpsFixedOrderTest : public OpsTest {};
class OpsFixedTilesTest : public OpsFixture {};  // what only the CPU has

TEST_F(OpsFixedTilesTest, ProductsInFixedTilesDoNotDependOnThreads) {
  const FixedTiles fixed(true);
  for (const DataType dtype : kComputeTypes) {
    // The last one is a product that oneDNN adds up in another order on two threads than on one (2.6, f32,
    // AVX-512).
    for (const Shape& sizes :
         {Shape{70, 1100, 300}, Shape{1300, 40, 300}, Shape{5, 3, 700}, Shape{256, 1024, 4096}}) {
      const int64_t m = sizes[0], n = sizes[1], k = sizes[2];
      for (int form = 0; form < 8; ++form) {
        if (k > 1000 && (form != 2 || dtype != DataType::kF32)) continue;
        const MatMulOptions options{(form & 1) != 0, (form & 2) != 0, (form & 4) != 0};
        const Twin a = Random(options.transpose_a ? Shape{k, m} : Shape{m, k}, dtype);
        const Twin b = Random(options.transpose_b ? Shape{n, k} : Shape{k, n}, dtype);
        const Twin before = Random({m, n}, DataType::kF32);
        Tensor first;
        for (const int threads : thread_counts()) {
          SetCpuThreads(threads);
          const Tensor c = before.tested.Clone();
          tested().MatMul(a.tested, b.tested, c, options);
          if (threads == 1) {
            first = c;
            if (k > 1000) continue;  // the reference takes its time
            reference().MatMul(a.reference, b.reference, before.reference, options);
            ExpectClose(c, before.reference, DataType::kF32, "MatMul");
          }
          ExpectSameBits(c, first, "MatMul");
        }
      }
    }
  }
}

TEST_P(OpsFixedOrderTest, AGroupsProductDoesNotDependOnOtherGroups) {
  const FixedTiles fixed(true);
  const std::vector<int32_t> offsets = {0,  3,   60, 60,
                                        92, 125, 126};  // more and fewer rows than skinny products have
  constexpr int64_t kIn = 40, kOut = 70;
  for (const DataType dtype : kComputeTypes) {
    const Twin x = Random({offsets.back(), kIn}, dtype), w = Random({6, kOut, kIn}, dtype),
               dy = Random({offsets.back(), kOut}, dtype);
    const Tensor all = FromIndices({7}, offsets).tested;
    const Tensor y = Output({offsets.back(), kOut}, dtype).tested,
                 dx = Output({offsets.back(), kIn}, dtype).tested,
                 dw = Tensor::Zeros(tested_device(), {6, kOut, kIn}, DataType::kF32);
    tested().GroupedMatMul(x.tested, all, w.tested, false, y);
    tested().GroupedMatMul(dy.tested, all, w.tested, true, dx);
    tested().GroupedMatMulWeightGrad(dy.tested, x.tested, all, dw);
    for (int64_t g = 0; g < 6; ++g) {
      const int32_t begin = offsets[g], end = offsets[g + 1];
      const Tensor alone = FromIndices({2}, {0, end - begin}).tested, weight = w.tested.Slice(g, g + 1);
      const Tensor y1 = Output({end - begin, kOut}, dtype).tested,
                   dx1 = Output({end - begin, kIn}, dtype).tested,
                   dw1 = Tensor::Zeros(tested_device(), {1, kOut, kIn}, DataType::kF32);
      tested().GroupedMatMul(x.tested.Slice(begin, end), alone, weight, false, y1);
      tested().GroupedMatMul(dy.tested.Slice(begin, end), alone, weight, true, dx1);
      tested().GroupedMatMulWeightGrad(dy.tested.Slice(begin, end), x.tested.Slice(begin, end), alone, dw1);
      ExpectSameBits(y1, y.Slice(begin, end), "GroupedMatMul");
      ExpectSameBits(dx1, dx.Slice(begin, end), "GroupedMatMul, transposed");
      ExpectSameBits(dw1, dw.Slice(g, g + 1), "GroupedMatMulWeightGrad");
    }
  }
}

// A vector's elements round as those that are left over do.
TEST_P(OpsFixedOrderTest, ElementsDoNotDependOnTheirPlace) {
  constexpr int64_t kSize = 150;
  for (const DataType dtype : kComputeTypes) {
    const Tensor a = Random({kSize}, dtype).tested, b = Random({kSize}, dtype).tested,
                 c = Random({kSize}, dtype).tested;
    const Tensor master = Random({kSize}, DataType::kF32).tested,
                 grad = Random({kSize}, DataType::kF32).tested, m = Random({kSize}, DataType::kF32).tested,
                 v = Edited(Random({kSize}, DataType::kF32).tested, [](std::vector<double>&values) {
                   for (double& value : values) value = std::abs(value);
                 });
    const AdamWOptions step{.lr = 0.01,
                            .beta1 = 0.9,
                            .beta2 = 0.95,
                            .eps = 1e-8,
                            .weight_decay = 0.1,
                            .step = 3,
                            .grad_scale = 0.7};
    // On [0, kSize) in pieces that end at `cut`: everything that comes out.
    const auto run = [&](int64_t cut) {
      std::vector<Tensor> outs;
      for (int i = 0; i < 4; ++i) outs.push_back(Tensor::Empty(tested_device(), {kSize}, dtype));
      std::vector<Tensor> state = {master.Clone(), m.Clone(), v.Clone()};
      for (const auto& [begin, end] : {std::pair{int64_t{0}, cut}, std::pair{cut, kSize}}) {
        const auto part = [begin = begin, end = end](const Tensor& x) { return x.Slice(begin, end); };
        tested().Add(part(a), part(b), part(outs[0]));
        tested().SwiGlu(part(a), part(b), part(outs[1]));
        tested().SwiGluGrad(part(c), part(a), part(b), part(outs[2]), part(outs[3]));
        tested().AdamW(part(state[0]), part(grad), part(state[1]), part(state[2]), Tensor(), step);
      }
      outs.insert(outs.end(), state.begin(), state.end());
      return outs;
    };
    const std::vector<Tensor> whole = run(kSize);
    for (int64_t cut = 0; cut < kSize; ++cut) {
      const std::vector<Tensor> cut_in_two = run(cut);
      for (size_t i = 0; i < whole.size(); ++i) ExpectSameBits(cut_in_two[i], whole[i], "elementwise");
    }
  }
}

TEST_F(OpsFixedTilesTest, ExactSquaresDoNotDependOnTheSplit) {
  constexpr int64_t kSize = 200000;
  const Tensor x = Random({kSize}, DataType::kF32, 1e-3).tested;
  float* values = x.data<float>();
  for (int64_t i = 0; i < kSize; i += 1000) values[i] *= 1e18f;
  for (int64_t i = 1; i < kSize; i += 1000) values[i] = 1e-42f;  // without a leading bit
  long double sum = 0;
  for (int64_t i = 0; i < kSize; ++i) sum += static_cast<long double>(values[i]) * values[i];
  ExactSquares whole;
  whole.Add(x);
  const double total = ExactSquares::Total(whole.Words());
  EXPECT_NEAR(total / static_cast<double>(sum), 1, 1e-15);
  for (const int threads : thread_counts()) {
    SetCpuThreads(threads);
    for (const int64_t parts : {2, 3, 7}) {
      std::vector<int64_t> words(512, 0);
      for (int64_t part = parts; part-- > 0;) {
        ExactSquares some;
        some.Add(x.Slice(kSize * part / parts, kSize * (part + 1) / parts));
        const std::vector<int64_t> more = some.Words();
        for (size_t i = 0; i < words.size(); ++i) words[i] += more[i];
      }
      EXPECT_EQ(ExactSquares::Total(words), total);
    }
  }
  values[77] = NAN;
  ExactSquares broken;
  broken.Add(x);
  EXPECT_FALSE(std::isfinite(ExactSquares::Total(broken.Words())));
}

COHORT_ON_EVERY_DEVICE(OpsFixedOrderTest);

}  // namespace
}  // namespace cohort::runtime
