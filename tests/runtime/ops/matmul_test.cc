// Matrix products, plain and grouped, against the reference.
#include "tests/runtime/ops/compare.h"

namespace cohort::runtime {
namespace {

struct Sizes {
  int64_t m, n, k;
};
constexpr Sizes kSizes[] = {{0, 5, 3},     {5, 0, 3},      {5, 3, 0},      {1, 1, 1},
                            {1, 64, 32},   {3, 7, 5},      {16, 16, 32},   {17, 33, 65},
                            {64, 48, 100}, {127, 130, 61}, {96, 257, 192}, {300, 100, 70}};

class OpsMatMulTest : public OpsTest {};

TEST_P(OpsMatMulTest, EveryFormOfTheProduct) {
  for (DataType dtype : kComputeTypes) {
    for (DataType output : {DataType::kF32, dtype}) {
      for (const auto& [m, n, k] : kSizes) {
        for (int form = 0; form < 8; ++form) {
          const MatMulOptions options{(form & 1) != 0, (form & 2) != 0, (form & 4) != 0};
          SetCpuThreads(1 + form % 3);
          const Twin a = Random(options.transpose_a ? Shape{k, m} : Shape{m, k}, dtype);
          const Twin b = Random(options.transpose_b ? Shape{n, k} : Shape{k, n}, dtype);
          const Twin c = options.accumulate ? Random({m, n}, output) : Output({m, n}, output);
          tested().MatMul(a.tested, b.tested, c.tested, options);
          reference().MatMul(a.reference, b.reference, c.reference, options);
          SCOPED_TRACE(testing::Message()
                       << m << "x" << n << "x" << k << " form " << form << " to " << Name(output));
          // The inputs are exact on both sides, so a product into f32 is as close as f32 sums are.
          ExpectTwin(c, output, "MatMul");
        }
      }
    }
  }
}

TEST_P(OpsMatMulTest, TheSameBitsTwice) {
  for (DataType dtype : kComputeTypes) {
    const Twin a = Random({200, 300}, dtype), b = Random({150, 300}, dtype);
    const Twin first = Output({200, 150}, dtype), second = Output({200, 150}, dtype);
    tested().MatMul(a.tested, b.tested, first.tested, {.transpose_b = true});
    tested().MatMul(a.tested, b.tested, second.tested, {.transpose_b = true});
    ExpectSameBits(first.tested, second.tested, "MatMul");
  }
}

TEST_P(OpsMatMulTest, Grouped) {
  const std::vector<std::vector<int32_t>> kOffsets = {
      {0}, {0, 0}, {0, 0, 0, 0}, {0, 37}, {0, 1, 1, 20, 90}, {0, 0, 33, 64, 65, 200}};
  for (DataType dtype : kComputeTypes) {
    for (const std::vector<int32_t>& values : kOffsets) {
      for (const auto& [in, out] : {std::pair<int64_t, int64_t>{32, 48}, {35, 17}, {0, 3}, {130, 64}}) {
        for (int threads : thread_counts()) {
          SetCpuThreads(threads);
          const int64_t experts = static_cast<int64_t>(values.size()) - 1, rows = values.back();
          const Twin offsets = FromIndices({experts + 1}, values);
          const Twin x = Random({rows, in}, dtype), w = Random({experts, out, in}, dtype);
          const Twin y = Output({rows, out}, dtype);
          tested().GroupedMatMul(x.tested, offsets.tested, w.tested, false, y.tested);
          reference().GroupedMatMul(x.reference, offsets.reference, w.reference, false, y.reference);
          ExpectTwin(y, dtype, "GroupedMatMul");

          const Twin dy = Random({rows, out}, dtype), dx = Output({rows, in}, dtype);
          tested().GroupedMatMul(dy.tested, offsets.tested, w.tested, true, dx.tested);
          reference().GroupedMatMul(dy.reference, offsets.reference, w.reference, true, dx.reference);
          ExpectTwin(dx, dtype, "GroupedMatMul transposed");

          const Twin dw = Random({experts, out, in}, DataType::kF32);
          tested().GroupedMatMulWeightGrad(dy.tested, x.tested, offsets.tested, dw.tested);
          reference().GroupedMatMulWeightGrad(dy.reference, x.reference, offsets.reference, dw.reference);
          ExpectTwin(dw, DataType::kF32, "GroupedMatMulWeightGrad");
        }
      }
    }
  }
}

COHORT_ON_EVERY_DEVICE(OpsMatMulTest);

}  // namespace
}  // namespace cohort::runtime
