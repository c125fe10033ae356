// The mixture-of-experts operations: the CPU against the reference, and the reference's gradients against
// finite differences.
#include <array>
#include <functional>

#include "tests/runtime/ops/compare.h"

namespace cohort::runtime {
namespace {

class MoeOpsTest : public OpsTest {
 protected:
  static constexpr int64_t kShapes[][2] = {{0, 8}, {1, 1}, {7, 3}, {700, 8}, {33, 128}};

  // forward(x, y) and its gradient backward(dy, x, y, dx) at x, in f64.
  void ExpectGradient(
      const Tensor& x, const std::function<void(const Tensor&, const Tensor&)>& forward,
      const std::function<void(const Tensor&, const Tensor&, const Tensor&, const Tensor&)>& backward,
      Shape y_shape, const char* what) {
    const Tensor y = Tensor::Zeros(ReferenceDevice(), y_shape, DataType::kF64);
    const Tensor dx = Tensor::Zeros(ReferenceDevice(), x.shape(), DataType::kF64);
    const Tensor dy = Random(y_shape, DataType::kF32).reference;
    const auto loss = [&] {
      forward(x, y);
      double sum = 0;
      for (int64_t i = 0; i < y.size(); ++i) sum += y.data<double>()[i] * dy.data<double>()[i];
      return sum;
    };
    loss();
    backward(dy, x, y, dx);
    for (int64_t i = 0; i < x.size(); ++i) {
      constexpr double kStep = 1e-6;
      double& value = x.data<double>()[i];
      const double before = value;
      value = before + kStep;
      const double up = loss();
      value = before - kStep;
      const double down = loss();
      value = before;
      EXPECT_NEAR(dx.data<double>()[i], (up - down) / (2 * kStep), 1e-6) << what << ", element " << i;
    }
  }

  // Distinct experts a token, some choices dropped.
  Twin Choices(int64_t tokens, int64_t k, int64_t experts) {
    std::vector<int32_t> values;
    for (int64_t t = 0; t < tokens; ++t) {
      const int32_t first = static_cast<int32_t>(generator_() % experts);
      for (int64_t j = 0; j < k; ++j) {
        const bool dropped = generator_() % 10 == 0;
        values.push_back(dropped ? -1 : static_cast<int32_t>((first + j) % experts));
      }
    }
    return FromIndices({tokens, k}, values);
  }
};

TEST_P(MoeOpsTest, RowFunctionsMatchTheReference) {
  for (int threads : thread_counts()) {
    SetCpuThreads(threads);
    for (const auto& [tokens, experts] : kShapes) {
      const Twin x = Random({tokens, experts}, DataType::kF32, 4),
                 dy = Random({tokens, experts}, DataType::kF32);
      const Twin y = Output({tokens, experts}, DataType::kF32),
                 dx = Output({tokens, experts}, DataType::kF32);
      tested().Softmax(x.tested, y.tested);
      reference().Softmax(x.reference, y.reference);
      ExpectTwin(y, DataType::kF32, "softmax");
      if (experts > 1) {
        tested().SoftmaxGrad(dy.tested, y.tested, dx.tested);
        reference().SoftmaxGrad(dy.reference, y.reference, dx.reference);
        ExpectTwin(dx, DataType::kF32, "softmax grad");
      }
      const Twin lse = Output({tokens}, DataType::kF32);
      tested().LogSumExp(x.tested, lse.tested);
      reference().LogSumExp(x.reference, lse.reference);
      ExpectTwin(lse, DataType::kF32, "log-sum-exp");
      tested().Sigmoid(x.tested, y.tested);
      reference().Sigmoid(x.reference, y.reference);
      ExpectTwin(y, DataType::kF32, "sigmoid");
      tested().SigmoidGrad(dy.tested, y.tested, dx.tested);
      reference().SigmoidGrad(dy.reference, y.reference, dx.reference);
      ExpectTwin(dx, DataType::kF32, "sigmoid grad");
      const Twin normal = Output({tokens, experts}, DataType::kF32);  // of the sigmoids, which are positive
      tested().NormalizeRows(y.tested, normal.tested);
      reference().NormalizeRows(y.reference, normal.reference);
      ExpectTwin(normal, DataType::kF32, "normalize");
      if (experts > 1) {
        tested().NormalizeRowsGrad(dy.tested, y.tested, normal.tested, dx.tested);
        reference().NormalizeRowsGrad(dy.reference, y.reference, normal.reference, dx.reference);
        ExpectTwin(dx, DataType::kF32, "normalize grad");
      }
    }
  }
}

TEST_P(MoeOpsTest, InPlaceGivesTheSame) {
  const Twin x = Random({50, 12}, DataType::kF32), y = Output({50, 12}, DataType::kF32);
  tested().Softmax(x.tested, y.tested);
  const Twin same = Clone(x);
  tested().Softmax(same.tested, same.tested);
  ExpectSameBits(y.tested, same.tested, "softmax in place");
  const Twin dy = Random({50, 12}, DataType::kF32), dx = Output({50, 12}, DataType::kF32);
  tested().SoftmaxGrad(dy.tested, y.tested, dx.tested);
  tested().SoftmaxGrad(dy.tested, y.tested, dy.tested);
  ExpectSameBits(dx.tested, dy.tested, "softmax grad in place");
}

TEST_P(MoeOpsTest, TopKIsBestFirstAndBreaksTiesDownwards) {
  const Tensor scores =
      Tensor::FromHost(tested_device(), {2, 5}, std::vector<float>{1, 3, 3, 0, 2, 5, 5, 5, 5, 5});
  const Tensor indices = Tensor::Empty(tested_device(), {2, 3}, DataType::kI32);
  tested().TopK(scores, Tensor(), indices);
  EXPECT_EQ(ToHost(indices), (std::vector<double>{1, 2, 4, 0, 1, 2}));
  const Tensor bias = Tensor::FromHost(tested_device(), {5}, std::vector<float>{0, 0, 0, 10, 0});
  tested().TopK(scores, bias, indices);
  EXPECT_EQ(ToHost(indices), (std::vector<double>{3, 1, 2, 3, 0, 1}));
}

TEST_P(MoeOpsTest, TopKMatchesTheReferenceWithTies) {
  for (const auto& [tokens, experts] : kShapes) {
    // Scores on a coarse grid, so that many are equal.
    std::vector<double> coarse = ToHost(Indices({tokens, experts}, -3, 3).tested);
    std::vector<double> coarse_bias = ToHost(Indices({experts}, 0, 1).tested);
    const Tensor scores = Tensor::FromHost(tested_device(), {tokens, experts}, DataType::kF32, coarse);
    const Tensor bias = Tensor::FromHost(tested_device(), {experts}, DataType::kF32, coarse_bias);
    for (int64_t k : {int64_t{0}, int64_t{1}, (experts + 1) / 2, experts}) {
      const Twin got = FromIndices({tokens, k}, std::vector<int32_t>(tokens * k));
      tested().TopK(scores, bias, got.tested);
      reference().TopK(scores.To(ReferenceDevice(), DataType::kF64),
                       bias.To(ReferenceDevice(), DataType::kF64), got.reference);
      EXPECT_EQ(ToHost(got.tested), ToHost(got.reference));
    }
  }
}

TEST_P(MoeOpsTest, ColumnsMatchTheReference) {
  for (const auto& [tokens, experts] : kShapes) {
    const int64_t k = (experts + 1) / 2;
    const Twin x = Random({tokens, experts}, DataType::kF32), y = Output({tokens, k}, DataType::kF32);
    const Twin indices = Indices({tokens, k}, 0, static_cast<int32_t>(experts) - 1);
    tested().GatherColumns(x.tested, indices.tested, y.tested);
    reference().GatherColumns(x.reference, indices.reference, y.reference);
    ExpectTwin(y, DataType::kF32, "gather columns");
    const Twin dy = Random({tokens, k}, DataType::kF32);
    tested().GatherColumnsGrad(dy.tested, indices.tested, x.tested);
    reference().GatherColumnsGrad(dy.reference, indices.reference, x.reference);
    ExpectTwin(x, DataType::kF32, "gather columns grad");
  }
}

TEST_P(MoeOpsTest, SortingIsStableAndInvertible) {
  for (const auto& [tokens, k, experts] :
       {std::array<int64_t, 3>{0, 2, 4}, {1, 1, 1}, {40, 2, 7}, {300, 4, 64}, {20, 3, 200}}) {
    const Twin indices = Choices(tokens, k, experts);
    const Twin offsets = FromIndices({experts + 1}, std::vector<int32_t>(experts + 1, 77));
    const Twin order = FromIndices({tokens * k}, std::vector<int32_t>(tokens * k, 77));
    const Twin places = FromIndices({tokens, k}, std::vector<int32_t>(tokens * k, 77));
    tested().SortByExpert(indices.tested, offsets.tested, order.tested, places.tested);
    reference().SortByExpert(indices.reference, offsets.reference, order.reference, places.reference);
    EXPECT_EQ(ToHost(offsets.tested), ToHost(offsets.reference));
    EXPECT_EQ(ToHost(order.tested), ToHost(order.reference));
    EXPECT_EQ(ToHost(places.tested), ToHost(places.reference));
    const std::vector<double> place = ToHost(places.tested), choice = ToHost(order.tested);
    for (size_t i = 0; i < place.size(); ++i) {
      if (place[i] >= 0) {
        EXPECT_EQ(choice[static_cast<size_t>(place[i])], i);
      }
    }
  }
}

TEST_P(MoeOpsTest, CombineMatchesTheReference) {
  for (int threads : thread_counts()) {
    SetCpuThreads(threads);
    for (DataType dtype : kComputeTypes) {
      for (const auto& [tokens, k, width] :
           {std::array<int64_t, 3>{0, 2, 8}, {1, 1, 1}, {90, 3, 33}, {50, 2, 256}}) {
        const int64_t experts = 5;
        const Twin indices = Choices(tokens, k, experts), offsets = Indices({experts + 1}, 0, 0);
        const Twin order = Indices({tokens * k}, 0, 0), places = Indices({tokens, k}, 0, 0);
        tested().SortByExpert(indices.tested, offsets.tested, order.tested, places.tested);
        reference().SortByExpert(indices.reference, offsets.reference, order.reference, places.reference);
        const Twin x = Random({tokens * k, width}, dtype), y = Output({tokens, width}, dtype);
        const Twin weights = Random({tokens, k}, DataType::kF32), dy = Random({tokens, width}, dtype);
        for (const bool weighted : {true, false}) {
          const Twin w = weighted ? weights : Twin();
          tested().CombineRows(x.tested, places.tested, w.tested, y.tested);
          reference().CombineRows(x.reference, places.reference, w.reference, y.reference);
          ExpectTwin(y, dtype, "combine");
          // Rows that no place names keep their values.
          const Twin dx = Random({tokens * k, width}, dtype), dweights = Output({tokens, k}, DataType::kF32);
          const Twin dw = weighted ? dweights : Twin();
          tested().CombineRowsGrad(dy.tested, x.tested, places.tested, w.tested, dx.tested, dw.tested);
          reference().CombineRowsGrad(dy.reference, x.reference, places.reference, w.reference, dx.reference,
                                      dw.reference);
          ExpectTwin(dx, dtype, "combine grad");
          if (weighted) ExpectTwin(dw, dtype, "weights' grad");
        }
      }
    }
  }
}

TEST_P(MoeOpsTest, ReferenceGradientsMatchFiniteDifferences) {
  Ops& ops = reference();
  ExpectGradient(
      Random({4, 5}, DataType::kF32).reference, [&](const Tensor& x, const Tensor& y) { ops.Softmax(x, y); },
      [&](const Tensor& dy, const Tensor&, const Tensor& y, const Tensor& dx) { ops.SoftmaxGrad(dy, y, dx); },
      {4, 5}, "softmax");
  ExpectGradient(
      Random({4, 5}, DataType::kF32).reference, [&](const Tensor& x, const Tensor& y) { ops.Sigmoid(x, y); },
      [&](const Tensor& dy, const Tensor&, const Tensor& y, const Tensor& dx) { ops.SigmoidGrad(dy, y, dx); },
      {4, 5}, "sigmoid");
  const Tensor positive = Random({4, 3}, DataType::kF32).reference;
  ops.Sigmoid(positive, positive);
  ExpectGradient(
      positive, [&](const Tensor& x, const Tensor& y) { ops.NormalizeRows(x, y); },
      [&](const Tensor& dy, const Tensor& x, const Tensor& y, const Tensor& dx) {
        ops.NormalizeRowsGrad(dy, x, y, dx);
      },
      {4, 3}, "normalize");
  const Tensor columns = Indices({4, 3}, 0, 4).reference;
  ExpectGradient(
      Random({4, 5}, DataType::kF32).reference,
      [&](const Tensor& x, const Tensor& y) { ops.GatherColumns(x, columns, y); },
      [&](const Tensor& dy, const Tensor&, const Tensor&, const Tensor& dx) {
        ops.GatherColumnsGrad(dy, columns, dx);
      },
      {4, 3}, "gather columns");
  const Tensor places = FromIndices({3, 2}, {4, 0, -1, 2, 1, 3}).reference;
  const Tensor weights = Random({3, 2}, DataType::kF32).reference,
               rows = Random({5, 3}, DataType::kF32).reference;
  const Tensor unused_rows = rows.Clone(), unused_weights = weights.Clone();
  ExpectGradient(
      rows, [&](const Tensor& x, const Tensor& y) { ops.CombineRows(x, places, weights, y); },
      [&](const Tensor& dy, const Tensor& x, const Tensor&, const Tensor& dx) {
        ops.CombineRowsGrad(dy, x, places, weights, dx, unused_weights);
      },
      {3, 3}, "combine, rows");
  ExpectGradient(
      weights, [&](const Tensor& w, const Tensor& y) { ops.CombineRows(rows, places, w, y); },
      [&](const Tensor& dy, const Tensor& w, const Tensor&, const Tensor& dw) {
        ops.CombineRowsGrad(dy, rows, places, w, unused_rows, dw);
      },
      {3, 3}, "combine, weights");
}

COHORT_ON_EVERY_DEVICE(MoeOpsTest);

}  // namespace
}  // namespace cohort::runtime
