// Operations at sizes where kernels take more than one tile, stage, chunk or block: the other tests' shapes are small.
#include <array>
#include <cmath>

#include "tests/runtime/ops/compare.h"

namespace cohort::runtime {
namespace {

class OpsShapesTest : public OpsTest {};

TEST_P(OpsShapesTest, ProductsOfManyTilesAndGroups) {
  const std::vector<std::vector<int32_t>> kOffsets = {
      {0, 130, 130, 131, 300}, {0, 0, 0, 257}, {0, 8, 9, 9, 9, 9, 40}};
  for (const std::vector<int32_t>& values : kOffsets) {
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>{168, 264}, {8, 8}, {136, 128}, {40, 24}}) {
      const int64_t experts = static_cast<int64_t>(values.size()) - 1, rows = values.back();
      const Twin offsets = FromIndices({experts + 1}, values);
      const Twin x = Random({rows, in}, DataType::kBF16), w = Random({experts, out, in}, DataType::kBF16);
      const Twin y = Output({rows, out}, DataType::kBF16);
      tested().GroupedMatMul(x.tested, offsets.tested, w.tested, false, y.tested);
      reference().GroupedMatMul(x.reference, offsets.reference, w.reference, false, y.reference);
      ExpectTwin(y, DataType::kBF16, "GroupedMatMul");
      const Twin dy = Random({rows, out}, DataType::kBF16), dx = Output({rows, in}, DataType::kBF16);
      tested().GroupedMatMul(dy.tested, offsets.tested, w.tested, true, dx.tested);
      reference().GroupedMatMul(dy.reference, offsets.reference, w.reference, true, dx.reference);
      ExpectTwin(dx, DataType::kBF16, "GroupedMatMul transposed");
      const Twin dw = Random({experts, out, in}, DataType::kF32);
      tested().GroupedMatMulWeightGrad(dy.tested, x.tested, offsets.tested, dw.tested);
      reference().GroupedMatMulWeightGrad(dy.reference, x.reference, offsets.reference, dw.reference);
      ExpectTwin(dw, DataType::kF32, "GroupedMatMulWeightGrad");
    }
  }
}

// Decoding: few rows, and one more than few.
TEST_P(OpsShapesTest, ProductsOfFewRows) {
  for (const auto& [n, k] :
       {std::pair<int64_t, int64_t>{16, 8}, {50, 64}, {333, 1000}, {40, 2056}, {300, 136}}) {
    const Twin w = Random({n, k}, DataType::kBF16);
    for (int64_t m : {1, 2, 5, 8, 9}) {
      const Twin x = Random({m, k}, DataType::kBF16);
      for (DataType out : {DataType::kF32, DataType::kBF16}) {
        const Twin y = Output({m, n}, out);
        tested().MatMul(x.tested, w.tested, y.tested, {.transpose_b = true});
        reference().MatMul(x.reference, w.reference, y.reference, {.transpose_b = true});
        SCOPED_TRACE(testing::Message() << m << "x" << n << "x" << k << " to " << Name(out));
        ExpectTwin(y, out, "MatMul");
      }
    }
  }
}

TEST_P(OpsShapesTest, LongRows) {
  for (DataType dtype : kComputeTypes) {
    for (int64_t width : {int64_t{4104}, int64_t{9003}}) {
      const Twin x = Random({3, width}, dtype), w = Random({width}, dtype), dy = Random({3, width}, dtype);
      const Twin y = Output({3, width}, dtype), rstd = Output({3}, DataType::kF32),
                 dx = Output({3, width}, dtype);
      tested().RmsNorm(x.tested, w.tested, 1e-5, y.tested, rstd.tested);
      reference().RmsNorm(x.reference, w.reference, 1e-5, y.reference, rstd.reference);
      ExpectTwin(y, dtype, "RmsNorm");
      tested().RmsNormGrad(dy.tested, x.tested, w.tested, rstd.tested, Tensor(), dx.tested);
      reference().RmsNormGrad(dy.reference, x.reference, w.reference, rstd.reference, Tensor(), dx.reference);
      ExpectTwin(dx, dtype, "RmsNormGrad");
      const Twin targets = FromIndices({3}, {static_cast<int32_t>(width) - 1, -1, 4100});
      const Twin losses = Output({3}, DataType::kF32);
      tested().CrossEntropy(x.tested, targets.tested, 0.5, losses.tested, dx.tested);
      reference().CrossEntropy(x.reference, targets.reference, 0.5, losses.reference, dx.reference);
      ExpectTwin(losses, DataType::kF32, "losses");
      ExpectTwin(dx, dtype, "dlogits");
    }
  }
}

TEST_P(OpsShapesTest, ManyRows) {
  const int64_t rows = 700, width = 40;
  const Twin x = Random({rows, width}, DataType::kBF16), dy = Random({rows, width}, DataType::kBF16);
  const Twin rstd = Random({rows}, DataType::kF32), dw = Random({width}, DataType::kF32);
  tested().RmsNormWeightGrad(dy.tested, x.tested, rstd.tested, dw.tested);
  reference().RmsNormWeightGrad(dy.reference, x.reference, rstd.reference, dw.reference);
  ExpectTwin(dw, DataType::kF32, "RmsNormWeightGrad");
}

// Tokens that come again in another chunk of the scan, and a table wider than a block's columns.
TEST_P(OpsShapesTest, EmbeddingGradOfManyTokens) {
  for (const auto& [count, vocabulary, width] : {std::array<int64_t, 3>{5000, 700, 24}, {60, 9, 2060}}) {
    const Twin tokens = Indices({count}, -1, static_cast<int32_t>(vocabulary) - 1);
    const Twin dy = Random({count, width}, DataType::kBF16),
               dtable = Random({vocabulary, width}, DataType::kF32);
    tested().EmbeddingGrad(dy.tested, tokens.tested, dtable.tested);
    reference().EmbeddingGrad(dy.reference, tokens.reference, dtable.reference);
    ExpectTwin(dtable, DataType::kF32, "EmbeddingGrad");
  }
}

TEST_P(OpsShapesTest, ManyChoicesAndExperts) {
  const int64_t tokens = 1500, k = 4, experts = 300;
  const Twin indices = Indices({tokens, k}, -1, experts - 1);
  const Twin offsets = Indices({experts + 1}, 0, 0), order = Indices({tokens * k}, 0, 0),
             places = Indices({tokens, k}, 0, 0);
  tested().SortByExpert(indices.tested, offsets.tested, order.tested, places.tested);
  reference().SortByExpert(indices.reference, offsets.reference, order.reference, places.reference);
  EXPECT_EQ(ToHost(offsets.tested), ToHost(offsets.reference));
  EXPECT_EQ(ToHost(order.tested), ToHost(order.reference));
  EXPECT_EQ(ToHost(places.tested), ToHost(places.reference));
}

TEST_P(OpsShapesTest, RouterLossesAndCapacityMatchTheReference) {
  const std::vector<int32_t> starts = {0, 0, 37, 38, 150};
  for (const auto& [experts, k] : {std::pair<int64_t, int64_t>{7, 2}, {70, 3}, {1, 1}}) {
    const int64_t tokens = starts.back(), sequences = static_cast<int64_t>(starts.size()) - 1;
    const Twin offsets = FromIndices({sequences + 1}, starts);
    const Twin probs = Random({tokens, experts}, DataType::kF32);
    const Twin indices = Indices({tokens, k}, 0, static_cast<int32_t>(experts) - 1);
    const Twin losses = Output({sequences}, DataType::kF32), grad = Random({tokens, experts}, DataType::kF32);
    tested().BalanceLoss(probs.tested, indices.tested, offsets.tested, 0.3, losses.tested, grad.tested);
    reference().BalanceLoss(probs.reference, indices.reference, offsets.reference, 0.3, losses.reference,
                            grad.reference);
    ExpectTwin(losses, DataType::kF32, "balance losses");
    ExpectTwin(grad, DataType::kF32, "balance gradient");
    const Twin z = Output({tokens}, DataType::kF32);
    tested().RouterZLoss(probs.tested, 0.2, z.tested, grad.tested);
    reference().RouterZLoss(probs.reference, 0.2, z.reference, grad.reference);
    ExpectTwin(z, DataType::kF32, "z losses");
    ExpectTwin(grad, DataType::kF32, "z gradient");
    for (double factor : {0.5, 1.0, 1.25}) {
      const Twin kept = Indices({tokens, k}, 77, 77);
      tested().DropOverCapacity(indices.tested, offsets.tested, experts, factor, kept.tested);
      reference().DropOverCapacity(indices.reference, offsets.reference, experts, factor, kept.reference);
      EXPECT_EQ(ToHost(kept.tested), ToHost(kept.reference)) << factor;
      const Twin in_place = Clone(indices);
      tested().DropOverCapacity(in_place.tested, offsets.tested, experts, factor, in_place.tested);
      EXPECT_EQ(ToHost(in_place.tested), ToHost(kept.reference)) << factor;
    }
  }
}

// Head widths beyond 128, and groups of more heads than a tile has rows.
TEST_P(OpsShapesTest, WideHeadsAndLargeGroups) {
  for (const auto& [heads, groups, width] : {std::array<int64_t, 3>{3, 1, 256}, {2, 2, 200}, {20, 1, 32}}) {
    for (DataType dtype : kComputeTypes) {
      const int64_t tokens = 100;
      const Twin q = Random({tokens, heads, width}, dtype), k = Random({tokens, groups, width}, dtype);
      const Twin v = Random({tokens, groups, width}, dtype), dy = Random({tokens, heads, width}, dtype);
      const Twin offsets = FromIndices({3}, {0, 33, 100}), y = Output(q.tested.shape(), dtype);
      const Twin lse = Output({heads, tokens}, DataType::kF32), dq = Output(q.tested.shape(), dtype);
      const Twin dk = Output(k.tested.shape(), dtype), dv = Output(k.tested.shape(), dtype);
      tested().Attention(q.tested, k.tested, v.tested, offsets.tested, 0.07, y.tested, lse.tested);
      reference().Attention(q.reference, k.reference, v.reference, offsets.reference, 0.07, y.reference,
                            lse.reference);
      ExpectTwin(y, dtype, "y");
      ExpectTwin(lse, dtype, "lse");
      tested().AttentionGrad(dy.tested, q.tested, k.tested, v.tested, y.tested, lse.tested, offsets.tested,
                             0.07, dq.tested, dk.tested, dv.tested);
      reference().AttentionGrad(dy.reference, q.reference, k.reference, v.reference, y.reference,
                                lse.reference, offsets.reference, 0.07, dq.reference, dk.reference,
                                dv.reference);
      ExpectTwin(dq, dtype, "dq");
      ExpectTwin(dk, dtype, "dk");
      ExpectTwin(dv, dtype, "dv");

      const int64_t page_size = 16, pages = 40;
      const Twin keys = Random({pages, groups, page_size, width}, dtype);
      const Twin values = Random({pages, groups, page_size, width}, dtype);
      std::vector<int32_t> table(2 * 20);
      for (int32_t i = 0; i < 40; ++i) table[i] = (i * 7 + 3) % 40;
      const Twin page_table = FromIndices({2, 20}, table), queries = FromIndices({3}, {0, 1, 4});
      const Twin lengths = FromIndices({2}, {300, 77}), out = Output({4, heads, width}, dtype);
      const Twin few = Random({4, heads, width}, dtype);
      tested().PagedAttention(few.tested, {keys.tested, values.tested}, page_table.tested, queries.tested,
                              lengths.tested, 0.07, out.tested);
      reference().PagedAttention(few.reference, {keys.reference, values.reference}, page_table.reference,
                                 queries.reference, lengths.reference, 0.07, out.reference);
      ExpectTwin(out, dtype, "paged");
    }
  }
}

COHORT_ON_EVERY_DEVICE(OpsShapesTest);

}  // namespace
}  // namespace cohort::runtime
