// The operations of a layer (embedding, norm, rotary positions, SwiGLU) and the loss against the reference.
#include "tests/runtime/ops/compare.h"

namespace cohort::runtime {
namespace {

struct Sizes {
  int64_t rows, width;
};
constexpr Sizes kSizes[] = {{0, 8}, {3, 0}, {1, 3}, {5, 16}, {9, 37}, {64, 128}, {131, 1001}};

class OpsLayersTest : public OpsTest {
 protected:
  template <typename Body>
  void ForEach(const Body& body) {
    for (DataType dtype : kComputeTypes) {
      for (int threads : thread_counts()) {
        SetCpuThreads(threads);
        for (const auto& [rows, width] : kSizes) {
          SCOPED_TRACE(testing::Message() << Name(dtype) << " " << rows << "x" << width << ", " << threads);
          body(dtype, rows, width);
        }
      }
    }
  }
};

TEST_P(OpsLayersTest, Embedding) {
  ForEach([&](DataType dtype, int64_t rows, int64_t width) {
    constexpr int64_t kVocabulary = 23;
    const Twin table = Random({kVocabulary, width}, dtype), tokens = Indices({rows}, -1, kVocabulary - 1);
    const Twin y = Output({rows, width}, dtype);
    tested().GatherRows(table.tested, tokens.tested, y.tested);
    reference().GatherRows(table.reference, tokens.reference, y.reference);
    ExpectTwin(y, DataType::kF32, "GatherRows");

    const Twin dy = Random({rows, width}, dtype), dtable = Random({kVocabulary, width}, DataType::kF32);
    tested().EmbeddingGrad(dy.tested, tokens.tested, dtable.tested);
    reference().EmbeddingGrad(dy.reference, tokens.reference, dtable.reference);
    ExpectTwin(dtable, DataType::kF32, "EmbeddingGrad");
  });
}

TEST_P(OpsLayersTest, RmsNorm) {
  ForEach([&](DataType dtype, int64_t rows, int64_t width) {
    const Twin x = Random({rows, width}, dtype), residual = Random({rows, width}, dtype);
    const Twin w = Random({width}, dtype), y = Output({rows, width}, dtype);
    const Twin rstd = Output({rows}, DataType::kF32), sum = Output({rows, width}, dtype);
    tested().RmsNorm(x.tested, w.tested, 1e-5, y.tested, rstd.tested);
    reference().RmsNorm(x.reference, w.reference, 1e-5, y.reference, rstd.reference);
    ExpectTwin(y, dtype, "y");
    ExpectTwin(rstd, DataType::kF32, "rstd");
    const Twin alias = Clone(x);
    tested().RmsNorm(alias.tested, w.tested, 1e-5, alias.tested, rstd.tested);
    ExpectSameBits(alias.tested, y.tested, "in place");

    tested().AddRmsNorm(x.tested, residual.tested, w.tested, 1e-5, sum.tested, y.tested, rstd.tested);
    reference().AddRmsNorm(x.reference, residual.reference, w.reference, 1e-5, sum.reference, y.reference,
                           rstd.reference);
    ExpectTwin(sum, dtype, "sum");
    ExpectTwin(y, dtype, "y of the sum");
    const Twin in_place = Clone(residual), y2 = Output({rows, width}, dtype);
    tested().AddRmsNorm(x.tested, in_place.tested, w.tested, 1e-5, in_place.tested, y2.tested, rstd.tested);
    ExpectSameBits(in_place.tested, sum.tested, "the sum in place");
    ExpectSameBits(y2.tested, y.tested, "y of the sum in place");
  });
}

TEST_P(OpsLayersTest, RmsNormGrad) {
  ForEach([&](DataType dtype, int64_t rows, int64_t width) {
    const Twin x = Random({rows, width}, dtype), dy = Random({rows, width}, dtype);
    const Twin add = Random({rows, width}, dtype), w = Random({width}, dtype);
    const Twin y = Output({rows, width}, dtype), rstd = Output({rows}, DataType::kF32);
    tested().RmsNorm(x.tested, w.tested, 1e-5, y.tested, rstd.tested);
    reference().RmsNorm(x.reference, w.reference, 1e-5, y.reference, rstd.reference);
    const Twin dx = Output({rows, width}, dtype);
    tested().RmsNormGrad(dy.tested, x.tested, w.tested, rstd.tested, Tensor(), dx.tested);
    reference().RmsNormGrad(dy.reference, x.reference, w.reference, rstd.reference, Tensor(), dx.reference);
    ExpectTwin(dx, dtype, "dx");
    tested().RmsNormGrad(dy.tested, x.tested, w.tested, rstd.tested, add.tested, dx.tested);
    reference().RmsNormGrad(dy.reference, x.reference, w.reference, rstd.reference, add.reference,
                            dx.reference);
    ExpectTwin(dx, dtype, "dx with the residual's");
    const Twin into_dy = Clone(dy), into_add = Clone(add);
    tested().RmsNormGrad(into_dy.tested, x.tested, w.tested, rstd.tested, add.tested, into_dy.tested);
    ExpectSameBits(into_dy.tested, dx.tested, "dx over dy");
    tested().RmsNormGrad(dy.tested, x.tested, w.tested, rstd.tested, into_add.tested, into_add.tested);
    ExpectSameBits(into_add.tested, dx.tested, "dx over add");

    const Twin dw = Random({width}, DataType::kF32);
    tested().RmsNormWeightGrad(dy.tested, x.tested, rstd.tested, dw.tested);
    reference().RmsNormWeightGrad(dy.reference, x.reference, rstd.reference, dw.reference);
    ExpectTwin(dw, DataType::kF32, "dw");
  });
}

TEST_P(OpsLayersTest, Rope) {
  for (DataType dtype : kComputeTypes) {
    for (int threads : thread_counts()) {
      SetCpuThreads(threads);
      for (const Shape& shape :
           {Shape{0, 4, 16}, Shape{5, 0, 8}, Shape{7, 3, 2}, Shape{33, 2, 64}, Shape{9, 5, 38}}) {
        const Twin x = Random(shape, dtype), positions = Indices({shape[0]}, 0, 99);
        const Twin table = Random({100, shape[2]}, DataType::kF32);
        for (bool inverse : {false, true}) {
          const Twin y = Clone(x);
          tested().Rope(y.tested, positions.tested, table.tested, inverse);
          reference().Rope(y.reference, positions.reference, table.reference, inverse);
          ExpectTwin(y, dtype, "Rope");
        }
      }
    }
  }
}

TEST_P(OpsLayersTest, SwiGlu) {
  ForEach([&](DataType dtype, int64_t rows, int64_t width) {
    const Twin gate = Random({rows, width}, dtype, 4), up = Random({rows, width}, dtype);
    const Twin dy = Random({rows, width}, dtype), y = Output({rows, width}, dtype);
    tested().SwiGlu(gate.tested, up.tested, y.tested);
    reference().SwiGlu(gate.reference, up.reference, y.reference);
    ExpectTwin(y, dtype, "y");
    const Twin over_up = Clone(up);
    tested().SwiGlu(gate.tested, over_up.tested, over_up.tested);
    ExpectSameBits(over_up.tested, y.tested, "y over up");

    const Twin dgate = Output({rows, width}, dtype), dup = Output({rows, width}, dtype);
    tested().SwiGluGrad(dy.tested, gate.tested, up.tested, dgate.tested, dup.tested);
    reference().SwiGluGrad(dy.reference, gate.reference, up.reference, dgate.reference, dup.reference);
    ExpectTwin(dgate, dtype, "dgate");
    ExpectTwin(dup, dtype, "dup");
    const Twin g = Clone(gate), u = Clone(up), d = Clone(dy);
    tested().SwiGluGrad(dy.tested, g.tested, u.tested, g.tested, u.tested);
    ExpectSameBits(g.tested, dgate.tested, "dgate over gate");
    ExpectSameBits(u.tested, dup.tested, "dup over up");
    tested().SwiGluGrad(d.tested, gate.tested, up.tested, d.tested, dup.tested);
    ExpectSameBits(d.tested, dgate.tested, "dgate over dy");
  });
}

TEST_P(OpsLayersTest, SwiGluFarFromZero) {
  const std::vector<double> gates = {-1e30, -200, -88, -87, 88, 89, 200, 1e30};
  const Tensor gate = Tensor::FromHost(tested_device(), {8}, DataType::kF32, gates);
  const Tensor up = Tensor::FromHost(tested_device(), {8}, DataType::kF32, std::vector<double>(8, 1.0));
  const Tensor y = Tensor::Empty(tested_device(), {8}, DataType::kF32);
  tested().SwiGlu(gate, up, y);
  for (size_t i = 0; i < gates.size(); ++i) {
    const double want = gates[i] > 0 ? gates[i] : gates[i] < -100 ? 0 : gates[i] * std::exp(gates[i]);
    EXPECT_NEAR(ToHost(y)[i], want, 1e-6 * std::abs(want) + 1e-35) << gates[i];
  }
}

TEST_P(OpsLayersTest, CrossEntropy) {
  ForEach([&](DataType dtype, int64_t rows, int64_t classes) {
    const Twin logits = Random({rows, classes}, dtype, 5);
    const Twin targets = Indices({rows}, -1, static_cast<int32_t>(classes) - 1);
    const Twin losses = Output({rows}, DataType::kF32), dlogits = Output({rows, classes}, dtype);
    tested().CrossEntropy(logits.tested, targets.tested, 0.125, losses.tested, dlogits.tested);
    reference().CrossEntropy(logits.reference, targets.reference, 0.125, losses.reference, dlogits.reference);
    ExpectTwin(losses, DataType::kF32, "losses");
    ExpectTwin(dlogits, dtype, "dlogits");
    const Twin alone = Output({rows}, DataType::kF32), in_place = Clone(logits);
    tested().CrossEntropy(logits.tested, targets.tested, 0.125, alone.tested, Tensor());
    ExpectSameBits(alone.tested, losses.tested, "losses without a gradient");
    tested().CrossEntropy(in_place.tested, targets.tested, 0.125, alone.tested, in_place.tested);
    ExpectSameBits(in_place.tested, dlogits.tested, "dlogits in place");
  });
}

TEST_P(OpsLayersTest, CrossEntropyOfExtremeLogits) {
  constexpr int64_t kClasses = 80;
  const double kRows[3][5] = {
      {1e4, -1e4, 0, 5e3, 1e4}, {-INFINITY, 0, 1, 2, -INFINITY}, {-1e30, 1e30, 10, 20, 30}};
  std::vector<double> values(3 * kClasses, -INFINITY);  // masked classes
  for (int row = 0; row < 3; ++row) std::copy_n(kRows[row], 5, values.begin() + row * kClasses);
  for (DataType dtype : kComputeTypes) {
    const Tensor logits = Tensor::FromHost(tested_device(), {3, kClasses}, dtype, values);
    const Tensor targets = Tensor::FromHost(tested_device(), {3}, std::vector<int32_t>{0, 3, 1});
    const Tensor losses = Tensor::Empty(tested_device(), {3}, DataType::kF32);
    const Tensor dlogits = Tensor::Empty(tested_device(), {3, kClasses}, dtype);
    tested().CrossEntropy(logits, targets, 1, losses, dlogits);
    const std::vector<double> got = ToHost(losses), grad = ToHost(dlogits);
    EXPECT_NEAR(got[0], std::log(2.0), 1e-6);
    EXPECT_NEAR(got[1], std::log(1 + std::exp(-1.0) + std::exp(-2.0)), 1e-6);
    EXPECT_EQ(got[2], 0);
    EXPECT_NEAR(grad[0], -0.5, 1e-6);
    EXPECT_EQ(grad[kClasses], 0);
    for (double value : grad) EXPECT_TRUE(std::isfinite(value));
  }
}

COHORT_ON_EVERY_DEVICE(OpsLayersTest);

}  // namespace
}  // namespace cohort::runtime
