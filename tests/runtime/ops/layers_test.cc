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
      for (int threads : kThreadCounts) {
        SetCpuThreads(threads);
        for (const auto& [rows, width] : kSizes) {
          SCOPED_TRACE(testing::Message() << Name(dtype) << " " << rows << "x" << width << ", " << threads);
          body(dtype, rows, width);
        }
      }
    }
  }
};

TEST_F(OpsLayersTest, Embedding) {
  ForEach([&](DataType dtype, int64_t rows, int64_t width) {
    constexpr int64_t kVocabulary = 23;
    const Twin table = Random({kVocabulary, width}, dtype), tokens = Indices({rows}, -1, kVocabulary - 1);
    const Twin y = Output({rows, width}, dtype);
    cpu().GatherRows(table.cpu, tokens.cpu, y.cpu);
    reference().GatherRows(table.reference, tokens.reference, y.reference);
    ExpectTwin(y, DataType::kF32, "GatherRows");

    const Twin dy = Random({rows, width}, dtype), dtable = Random({kVocabulary, width}, DataType::kF32);
    cpu().EmbeddingGrad(dy.cpu, tokens.cpu, dtable.cpu);
    reference().EmbeddingGrad(dy.reference, tokens.reference, dtable.reference);
    ExpectTwin(dtable, DataType::kF32, "EmbeddingGrad");
  });
}

TEST_F(OpsLayersTest, RmsNorm) {
  ForEach([&](DataType dtype, int64_t rows, int64_t width) {
    const Twin x = Random({rows, width}, dtype), residual = Random({rows, width}, dtype);
    const Twin w = Random({width}, dtype), y = Output({rows, width}, dtype);
    const Twin rstd = Output({rows}, DataType::kF32), sum = Output({rows, width}, dtype);
    cpu().RmsNorm(x.cpu, w.cpu, 1e-5, y.cpu, rstd.cpu);
    reference().RmsNorm(x.reference, w.reference, 1e-5, y.reference, rstd.reference);
    ExpectTwin(y, dtype, "y");
    ExpectTwin(rstd, DataType::kF32, "rstd");
    const Twin alias = Clone(x);
    cpu().RmsNorm(alias.cpu, w.cpu, 1e-5, alias.cpu, rstd.cpu);
    ExpectSameBits(alias.cpu, y.cpu, "in place");

    cpu().AddRmsNorm(x.cpu, residual.cpu, w.cpu, 1e-5, sum.cpu, y.cpu, rstd.cpu);
    reference().AddRmsNorm(x.reference, residual.reference, w.reference, 1e-5, sum.reference, y.reference,
                           rstd.reference);
    ExpectTwin(sum, dtype, "sum");
    ExpectTwin(y, dtype, "y of the sum");
    const Twin in_place = Clone(residual), y2 = Output({rows, width}, dtype);
    cpu().AddRmsNorm(x.cpu, in_place.cpu, w.cpu, 1e-5, in_place.cpu, y2.cpu, rstd.cpu);
    ExpectSameBits(in_place.cpu, sum.cpu, "the sum in place");
    ExpectSameBits(y2.cpu, y.cpu, "y of the sum in place");
  });
}

TEST_F(OpsLayersTest, RmsNormGrad) {
  ForEach([&](DataType dtype, int64_t rows, int64_t width) {
    const Twin x = Random({rows, width}, dtype), dy = Random({rows, width}, dtype);
    const Twin add = Random({rows, width}, dtype), w = Random({width}, dtype);
    const Twin y = Output({rows, width}, dtype), rstd = Output({rows}, DataType::kF32);
    cpu().RmsNorm(x.cpu, w.cpu, 1e-5, y.cpu, rstd.cpu);
    reference().RmsNorm(x.reference, w.reference, 1e-5, y.reference, rstd.reference);
    const Twin dx = Output({rows, width}, dtype);
    cpu().RmsNormGrad(dy.cpu, x.cpu, w.cpu, rstd.cpu, Tensor(), dx.cpu);
    reference().RmsNormGrad(dy.reference, x.reference, w.reference, rstd.reference, Tensor(), dx.reference);
    ExpectTwin(dx, dtype, "dx");
    cpu().RmsNormGrad(dy.cpu, x.cpu, w.cpu, rstd.cpu, add.cpu, dx.cpu);
    reference().RmsNormGrad(dy.reference, x.reference, w.reference, rstd.reference, add.reference,
                            dx.reference);
    ExpectTwin(dx, dtype, "dx with the residual's");
    const Twin into_dy = Clone(dy), into_add = Clone(add);
    cpu().RmsNormGrad(into_dy.cpu, x.cpu, w.cpu, rstd.cpu, add.cpu, into_dy.cpu);
    ExpectSameBits(into_dy.cpu, dx.cpu, "dx over dy");
    cpu().RmsNormGrad(dy.cpu, x.cpu, w.cpu, rstd.cpu, into_add.cpu, into_add.cpu);
    ExpectSameBits(into_add.cpu, dx.cpu, "dx over add");

    const Twin dw = Random({width}, DataType::kF32);
    cpu().RmsNormWeightGrad(dy.cpu, x.cpu, rstd.cpu, dw.cpu);
    reference().RmsNormWeightGrad(dy.reference, x.reference, rstd.reference, dw.reference);
    ExpectTwin(dw, DataType::kF32, "dw");
  });
}

TEST_F(OpsLayersTest, Rope) {
  for (DataType dtype : kComputeTypes) {
    for (int threads : kThreadCounts) {
      SetCpuThreads(threads);
      for (const Shape& shape :
           {Shape{0, 4, 16}, Shape{5, 0, 8}, Shape{7, 3, 2}, Shape{33, 2, 64}, Shape{9, 5, 38}}) {
        const Twin x = Random(shape, dtype), positions = Indices({shape[0]}, 0, 99);
        const Twin table = Random({100, shape[2]}, DataType::kF32);
        for (bool inverse : {false, true}) {
          const Twin y = Clone(x);
          cpu().Rope(y.cpu, positions.cpu, table.cpu, inverse);
          reference().Rope(y.reference, positions.reference, table.reference, inverse);
          ExpectTwin(y, dtype, "Rope");
        }
      }
    }
  }
}

TEST_F(OpsLayersTest, SwiGlu) {
  ForEach([&](DataType dtype, int64_t rows, int64_t width) {
    const Twin gate = Random({rows, width}, dtype, 4), up = Random({rows, width}, dtype);
    const Twin dy = Random({rows, width}, dtype), y = Output({rows, width}, dtype);
    cpu().SwiGlu(gate.cpu, up.cpu, y.cpu);
    reference().SwiGlu(gate.reference, up.reference, y.reference);
    ExpectTwin(y, dtype, "y");
    const Twin over_up = Clone(up);
    cpu().SwiGlu(gate.cpu, over_up.cpu, over_up.cpu);
    ExpectSameBits(over_up.cpu, y.cpu, "y over up");

    const Twin dgate = Output({rows, width}, dtype), dup = Output({rows, width}, dtype);
    cpu().SwiGluGrad(dy.cpu, gate.cpu, up.cpu, dgate.cpu, dup.cpu);
    reference().SwiGluGrad(dy.reference, gate.reference, up.reference, dgate.reference, dup.reference);
    ExpectTwin(dgate, dtype, "dgate");
    ExpectTwin(dup, dtype, "dup");
    const Twin g = Clone(gate), u = Clone(up), d = Clone(dy);
    cpu().SwiGluGrad(dy.cpu, g.cpu, u.cpu, g.cpu, u.cpu);
    ExpectSameBits(g.cpu, dgate.cpu, "dgate over gate");
    ExpectSameBits(u.cpu, dup.cpu, "dup over up");
    cpu().SwiGluGrad(d.cpu, gate.cpu, up.cpu, d.cpu, dup.cpu);
    ExpectSameBits(d.cpu, dgate.cpu, "dgate over dy");
  });
}

TEST_F(OpsLayersTest, SwiGluFarFromZero) {
  const std::vector<double> gates = {-1e30, -200, -88, -87, 88, 89, 200, 1e30};
  const Tensor gate = Tensor::FromHost(CpuDevice(), {8}, DataType::kF32, gates);
  const Tensor up = Tensor::FromHost(CpuDevice(), {8}, DataType::kF32, std::vector<double>(8, 1.0));
  const Tensor y = Tensor::Empty(CpuDevice(), {8}, DataType::kF32);
  cpu().SwiGlu(gate, up, y);
  for (size_t i = 0; i < gates.size(); ++i) {
    const double want = gates[i] > 0 ? gates[i] : gates[i] < -100 ? 0 : gates[i] * std::exp(gates[i]);
    EXPECT_NEAR(ToHost(y)[i], want, 1e-6 * std::abs(want) + 1e-35) << gates[i];
  }
}

TEST_F(OpsLayersTest, CrossEntropy) {
  ForEach([&](DataType dtype, int64_t rows, int64_t classes) {
    const Twin logits = Random({rows, classes}, dtype, 5);
    const Twin targets = Indices({rows}, -1, static_cast<int32_t>(classes) - 1);
    const Twin losses = Output({rows}, DataType::kF32), dlogits = Output({rows, classes}, dtype);
    cpu().CrossEntropy(logits.cpu, targets.cpu, 0.125, losses.cpu, dlogits.cpu);
    reference().CrossEntropy(logits.reference, targets.reference, 0.125, losses.reference, dlogits.reference);
    ExpectTwin(losses, DataType::kF32, "losses");
    ExpectTwin(dlogits, dtype, "dlogits");
    const Twin alone = Output({rows}, DataType::kF32), in_place = Clone(logits);
    cpu().CrossEntropy(logits.cpu, targets.cpu, 0.125, alone.cpu, Tensor());
    ExpectSameBits(alone.cpu, losses.cpu, "losses without a gradient");
    cpu().CrossEntropy(in_place.cpu, targets.cpu, 0.125, alone.cpu, in_place.cpu);
    ExpectSameBits(in_place.cpu, dlogits.cpu, "dlogits in place");
  });
}

TEST_F(OpsLayersTest, CrossEntropyOfExtremeLogits) {
  constexpr int64_t kClasses = 80;
  const double kRows[3][5] = {
      {1e4, -1e4, 0, 5e3, 1e4}, {-INFINITY, 0, 1, 2, -INFINITY}, {-1e30, 1e30, 10, 20, 30}};
  std::vector<double> values(3 * kClasses, -INFINITY);  // masked classes
  for (int row = 0; row < 3; ++row) std::copy_n(kRows[row], 5, values.begin() + row * kClasses);
  for (DataType dtype : kComputeTypes) {
    const Tensor logits = Tensor::FromHost(CpuDevice(), {3, kClasses}, dtype, values);
    const Tensor targets = Tensor::FromHost(CpuDevice(), {3}, std::vector<int32_t>{0, 3, 1});
    const Tensor losses = Tensor::Empty(CpuDevice(), {3}, DataType::kF32);
    const Tensor dlogits = Tensor::Empty(CpuDevice(), {3, kClasses}, dtype);
    cpu().CrossEntropy(logits, targets, 1, losses, dlogits);
    const std::vector<double> got = ToHost(losses), grad = ToHost(dlogits);
    EXPECT_NEAR(got[0], std::log(2.0), 1e-6);
    EXPECT_NEAR(got[1], std::log(1 + std::exp(-1.0) + std::exp(-2.0)), 1e-6);
    EXPECT_EQ(got[2], 0);
    EXPECT_NEAR(grad[0], -0.5, 1e-6);
    EXPECT_EQ(grad[kClasses], 0);
    for (double value : grad) EXPECT_TRUE(std::isfinite(value));
  }
}

}  // namespace
}  // namespace cohort::runtime
