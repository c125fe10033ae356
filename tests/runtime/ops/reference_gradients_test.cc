// The judge judged: the reference's gradients against central differences of its
// own forward operations, in f64.
#include <functional>

#include "tests/runtime/ops/compare.h"

namespace cohort::runtime {
namespace {

class OpsReferenceGradientTest : public OpsFixture {
 protected:
  Tensor Values(Shape shape) { return Random(shape, DataType::kF64).reference; }
  Tensor Empty(Shape shape) { return Tensor::Empty(ReferenceDevice(), shape, DataType::kF64); }
  Tensor Zeros(Shape shape) { return Tensor::Zeros(ReferenceDevice(), shape, DataType::kF64); }

  static double Dot(const Tensor& a, const Tensor& b) {
    double sum = 0;
    for (int64_t i = 0; i < a.size(); ++i) sum += a.data<double>()[i] * b.data<double>()[i];
    return sum;
  }

  // `gradient` is d loss() / dx at x.
  static void ExpectGradient(const Tensor& x, const std::function<double()>& loss, const Tensor& gradient,
                             const char* what) {
    constexpr double kStep = 1e-5;
    std::vector<double> differences(x.size());
    for (int64_t i = 0; i < x.size(); ++i) {
      double& value = x.data<double>()[i];
      const double at = value;
      value = at + kStep;
      const double above = loss();
      value = at - kStep;
      differences[i] = (above - loss()) / (2 * kStep);
      value = at;
    }
    EXPECT_LT(RelativeError(ToHost(gradient), differences), 1e-7) << what;
  }
};

TEST_F(OpsReferenceGradientTest, LinearLayer) {
  const Tensor x = Values({5, 4}), w = Values({3, 4}), y = Empty({5, 3}), dy = Values({5, 3});
  const auto loss = [&] {
    reference().MatMul(x, w, y, {.transpose_b = true});
    return Dot(y, dy);
  };
  const Tensor dx = Empty({5, 4}), dw = Zeros({3, 4});
  reference().MatMul(dy, w, dx);
  reference().MatMul(dy, x, dw, {.transpose_a = true, .accumulate = true});
  ExpectGradient(x, loss, dx, "dx");
  ExpectGradient(w, loss, dw, "dw");
}

TEST_F(OpsReferenceGradientTest, GroupedLinearLayer) {
  const Tensor x = Values({6, 4}), w = Values({3, 2, 4}), y = Empty({6, 2}), dy = Values({6, 2});
  const Tensor offsets = FromIndices({4}, {0, 2, 2, 6}).reference;
  const auto loss = [&] {
    reference().GroupedMatMul(x, offsets, w, false, y);
    return Dot(y, dy);
  };
  const Tensor dx = Empty({6, 4}), dw = Zeros({3, 2, 4});
  reference().GroupedMatMul(dy, offsets, w, true, dx);
  reference().GroupedMatMulWeightGrad(dy, x, offsets, dw);
  ExpectGradient(x, loss, dx, "dx");
  ExpectGradient(w, loss, dw, "dw");
}

TEST_F(OpsReferenceGradientTest, Embedding) {
  const Tensor table = Values({4, 3}), y = Empty({6, 3}), dy = Values({6, 3}), dtable = Zeros({4, 3});
  const Tensor tokens = FromIndices({6}, {3, 0, 3, -1, 1, 3}).reference;
  const auto loss = [&] {
    reference().GatherRows(table, tokens, y);
    return Dot(y, dy);
  };
  reference().EmbeddingGrad(dy, tokens, dtable);
  ExpectGradient(table, loss, dtable, "dtable");
}

TEST_F(OpsReferenceGradientTest, RmsNormWithResidual) {
  const Tensor x = Values({4, 5}), residual = Values({4, 5}), w = Values({5}), dy = Values({4, 5});
  const Tensor sum = Empty({4, 5}), y = Empty({4, 5}), rstd = Empty({4}), dsum = Values({4, 5});
  const auto loss = [&] {
    reference().AddRmsNorm(x, residual, w, 1e-3, sum, y, rstd);
    return Dot(y, dy) + Dot(sum, dsum);  // the sum goes on as the residual stream
  };
  loss();
  const Tensor dx = Empty({4, 5}), dw = Zeros({5});
  reference().RmsNormGrad(dy, sum, w, rstd, dsum, dx);
  reference().RmsNormWeightGrad(dy, sum, rstd, dw);
  ExpectGradient(x, loss, dx, "dx");
  ExpectGradient(residual, loss, dx, "dresidual");
  ExpectGradient(w, loss, dw, "dw");
}

TEST_F(OpsReferenceGradientTest, Rope) {
  const Tensor x = Values({3, 2, 6}), dy = Values({3, 2, 6}),
               positions = FromIndices({3}, {4, 0, 2}).reference;
  const Tensor table = Values({5, 6});
  const auto loss = [&] {
    const Tensor y = x.Clone();
    reference().Rope(y, positions, table, false);
    return Dot(y, dy);
  };
  const Tensor dx = dy.Clone();
  reference().Rope(dx, positions, table, true);
  ExpectGradient(x, loss, dx, "dx");
}

TEST_F(OpsReferenceGradientTest, SwiGlu) {
  const Tensor gate = Values({4, 3}), up = Values({4, 3}), y = Empty({4, 3}), dy = Values({4, 3});
  const auto loss = [&] {
    reference().SwiGlu(gate, up, y);
    return Dot(y, dy);
  };
  const Tensor dgate = Empty({4, 3}), dup = Empty({4, 3});
  reference().SwiGluGrad(dy, gate, up, dgate, dup);
  ExpectGradient(gate, loss, dgate, "dgate");
  ExpectGradient(up, loss, dup, "dup");
}

TEST_F(OpsReferenceGradientTest, CrossEntropy) {
  constexpr double kScale = 0.25;
  const Tensor logits = Values({4, 7}), targets = FromIndices({4}, {6, -1, 0, 3}).reference;
  const Tensor losses = Empty({4}), dlogits = Empty({4, 7});
  const auto loss = [&] {
    reference().CrossEntropy(logits, targets, kScale, losses, Tensor());
    double sum = 0;
    for (double value : ToHost(losses)) sum += kScale * value;
    return sum;
  };
  reference().CrossEntropy(logits, targets, kScale, losses, dlogits);
  ExpectGradient(logits, loss, dlogits, "dlogits");
}

// Two steps worked out by hand: with one gradient value, bias correction makes the first step lr sign(g).
TEST_F(OpsReferenceGradientTest, AdamWFirstSteps) {
  const Tensor master = Zeros({2}), m = Zeros({2}), v = Zeros({2});
  const Tensor grad = Tensor::FromHost(ReferenceDevice(), {2}, DataType::kF64, std::vector<double>{4, -0.5});
  AdamWOptions options{.lr = 0.1, .beta1 = 0.9, .beta2 = 0.99, .eps = 0, .weight_decay = 0.5, .step = 1};
  reference().AdamW(master, grad, m, v, Tensor(), options);
  EXPECT_NEAR(ToHost(master)[0], -0.1, 1e-12);
  EXPECT_NEAR(ToHost(master)[1], 0.1, 1e-12);
  options.step = 2;
  reference().AdamW(master, grad, m, v, Tensor(), options);
  EXPECT_NEAR(ToHost(master)[0], -0.1 - 0.1 * (1 + 0.5 * -0.1), 1e-12);  // decay acts on the old weight
}

}  // namespace
}  // namespace cohort::runtime
