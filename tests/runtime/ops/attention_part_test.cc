// Attention to parts of the keys: each part against the f64 reference, parts merged against whole attention, and
// the reference's gradients against finite differences. The parts are those of context parallelism: ranks hold
// contiguous, zigzag (two runs) or striped tokens of every sequence.
#include <functional>
#include <numeric>
#include <string>

#include "tests/runtime/ops/compare.h"

namespace cohort::runtime {
namespace {

enum class Layout { kContiguous, kZigzag, kStriped };
constexpr Layout kLayouts[] = {Layout::kContiguous, Layout::kZigzag, Layout::kStriped};

// The positions that rank r of n holds of a sequence.
std::vector<int32_t> Positions(Layout layout, int32_t length, int32_t r, int32_t n) {
  std::vector<int32_t> result;
  for (int32_t i = 0; i < length; ++i) {
    const int32_t chunk = layout == Layout::kZigzag ? i * 2 * n / length : i * n / length;
    const int32_t owner = layout == Layout::kStriped ? i % n : chunk < n ? chunk : 2 * n - 1 - chunk;
    if (owner == r) result.push_back(i);
  }
  return result;
}

struct Case {
  std::vector<int32_t> lengths;
  int64_t heads, groups, width;
};
const Case kCases[] = {
    {{}, 4, 2, 64},    {{1, 0, 2}, 2, 1, 8}, {{5, 0, 33, 1, 64}, 4, 4, 8}, {{17, 330}, 8, 2, 64},
    {{420}, 2, 1, 80}, {{37, 95}, 6, 2, 96}, {{290, 3}, 3, 1, 128},        {{40}, 16, 1, 7},
};

class AttentionPartTest : public OpsTest {
 protected:
  // One rank's tokens of a batch.
  struct Share {
    std::vector<int32_t> rows;  // their rows in the whole batch
    Twin offsets, positions;
  };
  Share MakeShare(const std::vector<int32_t>& lengths, Layout layout, int r, int n) {
    Share share;
    std::vector<int32_t> offsets = {0}, positions;
    int32_t start = 0;
    for (int32_t length : lengths) {
      for (int32_t position : Positions(layout, length, r, n)) {
        positions.push_back(position);
        share.rows.push_back(start + position);
      }
      start += length;
      offsets.push_back(static_cast<int32_t>(positions.size()));
    }
    share.offsets = FromIndices({static_cast<int64_t>(offsets.size())}, offsets);
    share.positions = FromIndices({static_cast<int64_t>(positions.size())}, positions);
    return share;
  }
  // Those rows of a tensor [T, heads, width].
  static Tensor Take(const Tensor& x, const std::vector<int32_t>& rows) {
    const int64_t count = rows.size(), row = x.dim(1) * x.dim(2);
    const Tensor y = Tensor::Empty(x.device(), {count, x.dim(1), x.dim(2)}, x.dtype());
    x.device().ops().GatherRows(x.View({x.dim(0), row}), Tensor::FromHost(x.device(), {count}, rows),
                                y.View({count, row}));
    return y;
  }
  static Twin Take(const Twin& x, const std::vector<int32_t>& rows) {
    return {Take(x.tested, rows), Take(x.reference, rows)};
  }
  // lse, with the -inf of queries that see nothing turned into numbers that can be compared.
  static std::vector<double> Finite(const Tensor& lse) {
    std::vector<double> values = ToHost(lse);
    for (double& value : values) {
      if (value == -INFINITY) value = -100;
    }
    return values;
  }
  static int64_t TokensOf(const Case& c) { return std::accumulate(c.lengths.begin(), c.lengths.end(), 0); }
  static double ScaleOf(const Case& c) { return 1.3 / std::sqrt(static_cast<double>(c.width)); }
  static double Largest(const Tensor& x) {
    double largest = 0;
    for (double value : ToHost(x)) largest = std::max(largest, std::abs(value));
    return largest;
  }
  // Equal to the reference up to the tolerance of `dtype`, measured by at least 1: a part may see next to
  // nothing, and its gradients cancel then.
  static void ExpectNear(const Twin& x, DataType dtype, const std::string& what) {
    const std::vector<double> got = ToHost(x.tested), want = ToHost(x.reference);
    const double unit = std::max(1.0, Largest(x.reference));
    double worst = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_TRUE(std::isfinite(got[i])) << what;
      worst = std::max(worst, std::abs(got[i] - want[i]));
    }
    EXPECT_LT(worst / unit, Tolerance(dtype)) << what;
  }
};

TEST_P(AttentionPartTest, ForwardOfEachPartMatchesTheReference) {
  for (DataType dtype : kComputeTypes) {
    for (const Case& c : kCases) {
      const int64_t tokens = TokensOf(c);
      const Twin q = Random({tokens, c.heads, c.width}, dtype),
                 k = Random({tokens, c.groups, c.width}, dtype);
      const Twin v = Random({tokens, c.groups, c.width}, dtype);
      for (Layout layout : kLayouts) {
        for (int r : {0, 2}) {
          if (emulated() && r == 0 && tokens > 100) continue;
          for (int from : {0, 1, 2}) {
            const Share mine = MakeShare(c.lengths, layout, r, 3),
                        theirs = MakeShare(c.lengths, layout, from, 3);
            const Twin qs = Take(q, mine.rows), ks = Take(k, theirs.rows), vs = Take(v, theirs.rows);
            const Twin y = Output(qs.tested.shape(), dtype),
                       exact = Output(qs.tested.shape(), DataType::kF32);
            const Twin lse = Output({c.heads, qs.tested.dim(0)}, DataType::kF32);
            reference().AttentionPart(qs.reference, ks.reference, vs.reference, mine.offsets.reference,
                                      theirs.offsets.reference, mine.positions.reference,
                                      theirs.positions.reference, ScaleOf(c), y.reference, lse.reference);
            SetCpuThreads(from == 1 ? 3 : 1);
            for (const Tensor& out : {y.tested, exact.tested}) {
              tested().Fill(lse.tested, 1e6);
              tested().AttentionPart(qs.tested, ks.tested, vs.tested, mine.offsets.tested,
                                     theirs.offsets.tested, mine.positions.tested, theirs.positions.tested,
                                     ScaleOf(c), out, lse.tested);
              const std::string what = "layout " + std::to_string(static_cast<int>(layout)) + ", " +
                                       std::to_string(r) + " from " + std::to_string(from) + ", width " +
                                       std::to_string(c.width);
              ExpectNear({out, y.reference}, dtype, what);
              EXPECT_LT(RelativeError(Finite(lse.tested), Finite(lse.reference)), Tolerance(dtype)) << what;
            }
          }
        }
      }
    }
  }
}

// The whole way of a ring: parts merged give attention over whole sequences, the gradients of the parts added up
// give its gradients.
TEST_P(AttentionPartTest, PartsMergedEqualWholeAttention) {
  constexpr int kRanks = 3;
  for (DataType dtype : kComputeTypes) {
    for (const Case& c : {kCases[2], kCases[3], kCases[4], kCases[6]}) {
      if (emulated() && c.width > 64) continue;
      const int64_t tokens = TokensOf(c);
      const Twin q = Random({tokens, c.heads, c.width}, dtype),
                 k = Random({tokens, c.groups, c.width}, dtype);
      const Twin v = Random({tokens, c.groups, c.width}, dtype), dy = Random(q.tested.shape(), dtype);
      std::vector<int32_t> starts = {0};
      for (int32_t length : c.lengths) starts.push_back(starts.back() + length);
      const Twin offsets = FromIndices({static_cast<int64_t>(starts.size())}, starts);
      const Twin y = Output(q.tested.shape(), dtype), lse = Output({c.heads, tokens}, DataType::kF32);
      const Twin dq = Output(q.tested.shape(), dtype), dk = Output(k.tested.shape(), dtype);
      const Twin dv = Output(k.tested.shape(), dtype);
      reference().Attention(q.reference, k.reference, v.reference, offsets.reference, ScaleOf(c), y.reference,
                            lse.reference);
      reference().AttentionGrad(dy.reference, q.reference, k.reference, v.reference, y.reference,
                                lse.reference, offsets.reference, ScaleOf(c), dq.reference, dk.reference,
                                dv.reference);
      for (Layout layout : kLayouts) {
        SetCpuThreads(layout == Layout::kZigzag && c.width == 8 ? 3 : 1);
        for (bool on_tested : {true, false}) {
          Device& device = on_tested ? tested_device() : ReferenceDevice();
          Ops& ops = device.ops();
          const auto on = [&](const Twin& x) { return on_tested ? x.tested : x.reference; };
          const DataType state = device.state_dtype();
          std::vector<Share> shares;
          std::vector<Tensor> ks, vs, dks, dvs;
          for (int r = 0; r < kRanks; ++r) {
            shares.push_back(MakeShare(c.lengths, layout, r, kRanks));
            ks.push_back(Take(on(k), shares[r].rows));
            vs.push_back(Take(on(v), shares[r].rows));
            dks.push_back(Tensor::Zeros(device, ks[r].shape(), state));
            dvs.push_back(Tensor::Zeros(device, ks[r].shape(), state));
          }
          const DataType judged = on_tested ? dtype : DataType::kF32;
          for (int r = 0; r < kRanks; ++r) {
            const Tensor qs = Take(on(q), shares[r].rows), dys = Take(on(dy), shares[r].rows);
            const Tensor merged = Tensor::Empty(device, qs.shape(), state);
            const Tensor part = Tensor::Empty(device, qs.shape(), state);
            const Tensor merged_lse = Tensor::Empty(device, {c.heads, qs.dim(0)}, state);
            const Tensor part_lse = Tensor::Empty(device, merged_lse.shape(), state);
            const auto positions = [&](int i) { return on(shares[i].positions); };
            for (int step = 0; step < kRanks; ++step) {
              const int from = (r + step) % kRanks;
              ops.AttentionPart(qs, ks[from], vs[from], on(shares[r].offsets), on(shares[from].offsets),
                                positions(r), positions(from), ScaleOf(c), step == 0 ? merged : part,
                                step == 0 ? merged_lse : part_lse);
              if (step > 0) ops.MergeAttention(part, part_lse, merged, merged_lse);
            }
            ExpectNear({merged, Take(y.reference, shares[r].rows)}, judged, "y merged");
            const Tensor dqs = Tensor::Zeros(device, qs.shape(), state);
            const Tensor delta = Tensor::Empty(device, merged_lse.shape(), state);
            ops.AttentionDelta(dys, merged, delta);
            for (int from = 0; from < kRanks; ++from) {
              ops.AttentionPartGrad(dys, qs, ks[from], vs[from], merged_lse, delta, on(shares[r].offsets),
                                    on(shares[from].offsets), positions(r), positions(from), ScaleOf(c), dqs,
                                    dks[from], dvs[from]);
            }
            ExpectNear({dqs, Take(dq.reference, shares[r].rows)}, judged, "dq");
          }
          for (int r = 0; r < kRanks; ++r) {
            ExpectNear({dks[r], Take(dk.reference, shares[r].rows)}, judged, "dk");
            ExpectNear({dvs[r], Take(dv.reference, shares[r].rows)}, judged, "dv");
          }
        }
      }
    }
  }
}

// A part with all tokens is attention itself: the same kernels, the same bits. Gradients are added.
TEST_P(AttentionPartTest, TheWholeAsOnePartGivesTheSameBits) {
  for (DataType dtype : kComputeTypes) {
    const Case c = {emulated() ? std::vector<int32_t>{70, 1, 200} : std::vector<int32_t>{170, 1, 1100}, 4, 2,
                    64};
    const int64_t tokens = TokensOf(c);
    const Twin q = Random({tokens, c.heads, c.width}, dtype), k = Random({tokens, c.groups, c.width}, dtype);
    const Twin v = Random({tokens, c.groups, c.width}, dtype), dy = Random(q.tested.shape(), dtype);
    const Share whole = MakeShare(c.lengths, Layout::kContiguous, 0, 1);
    const Twin y = Output(q.tested.shape(), dtype), part = Output(q.tested.shape(), dtype);
    const Twin lse = Output({c.heads, tokens}, DataType::kF32),
               part_lse = Output({c.heads, tokens}, DataType::kF32);
    tested().Attention(q.tested, k.tested, v.tested, whole.offsets.tested, ScaleOf(c), y.tested, lse.tested);
    tested().AttentionPart(q.tested, k.tested, v.tested, whole.offsets.tested, whole.offsets.tested,
                           whole.positions.tested, whole.positions.tested, ScaleOf(c), part.tested,
                           part_lse.tested);
    ExpectSameBits(y.tested, part.tested, "y");
    ExpectSameBits(lse.tested, part_lse.tested, "lse");
    const Twin dq = Output(q.tested.shape(), dtype), dk = Output(k.tested.shape(), dtype);
    const Twin dv = Output(k.tested.shape(), dtype);
    tested().AttentionGrad(dy.tested, q.tested, k.tested, v.tested, y.tested, lse.tested,
                           whole.offsets.tested, ScaleOf(c), dq.tested, dk.tested, dv.tested);
    const Tensor sums[] = {Tensor::Zeros(tested_device(), q.tested.shape(), DataType::kF32),
                           Tensor::Zeros(tested_device(), k.tested.shape(), DataType::kF32),
                           Tensor::Zeros(tested_device(), k.tested.shape(), DataType::kF32)};
    const Tensor delta = Tensor::Empty(tested_device(), lse.tested.shape(), DataType::kF32);
    tested().AttentionDelta(dy.tested, y.tested, delta);
    const auto add = [&] {
      tested().AttentionPartGrad(dy.tested, q.tested, k.tested, v.tested, lse.tested, delta,
                                 whole.offsets.tested, whole.offsets.tested, whole.positions.tested,
                                 whole.positions.tested, ScaleOf(c), sums[0], sums[1], sums[2]);
    };
    add();
    const Tensor grads[] = {dq.tested, dk.tested, dv.tested};
    for (int i = 0; i < 3; ++i) ExpectSameBits(sums[i].To(tested_device(), dtype), grads[i], "gradient");
    const Tensor once = sums[1].Clone();
    add();
    tested().Scale(once, 2);
    ExpectSameBits(sums[1], once, "twice the gradient");
  }
}

TEST_P(AttentionPartTest, MergeMatchesTheReferenceInEveryType) {
  const int64_t tokens = 37, heads = 3, width = 20;
  for (DataType part_type : kComputeTypes) {
    for (DataType type : kComputeTypes) {
      const Twin part = Random({tokens, heads, width}, part_type), y = Random({tokens, heads, width}, type);
      Twin part_lse = Random({heads, tokens}, DataType::kF32, 30),
           lse = Random({heads, tokens}, DataType::kF32, 30);
      // Parts that saw nothing: one, the other, and both.
      for (Tensor* x : {&part_lse.tested, &part_lse.reference}) {
        *x = Edited(*x, [](std::vector<double>& values) { values[0] = values[7] = -INFINITY; });
      }
      for (Tensor* x : {&lse.tested, &lse.reference}) {
        *x = Edited(*x, [](std::vector<double>& values) { values[7] = values[9] = -INFINITY; });
      }
      tested().MergeAttention(part.tested, part_lse.tested, y.tested, lse.tested);
      reference().MergeAttention(part.reference, part_lse.reference, y.reference, lse.reference);
      ExpectTwin(y, type, "y");
      EXPECT_EQ(ToHost(lse.tested)[7], -INFINITY);
      EXPECT_LT(RelativeError(Finite(lse.tested), Finite(lse.reference)), 1e-5);
    }
  }
}

// d(sum of dy y + dlse lse) / dx of two parts merged, by central differences in f64. The gradient of the merged
// outputs is that of the parts, given the final y and lse.
TEST_P(AttentionPartTest, ReferenceGradientsMatchFiniteDifferences) {
  const Case c = {{5, 0, 8}, 4, 2, 3};
  const double scale = 0.7, step = 1e-5;
  const Share mine = MakeShare(c.lengths, Layout::kZigzag, 1, 2),
              other = MakeShare(c.lengths, Layout::kZigzag, 0, 2);
  const int64_t tokens = mine.rows.size(), others = other.rows.size();
  const auto values = [&](Shape shape) { return Random(shape, DataType::kF64).reference; };
  const auto zeros = [&](Shape shape) { return Tensor::Zeros(ReferenceDevice(), shape, DataType::kF64); };
  const Tensor q = values({tokens, c.heads, c.width}), dy = values({tokens, c.heads, c.width});
  const Tensor k[] = {values({tokens, c.groups, c.width}), values({others, c.groups, c.width})};
  const Tensor v[] = {values({tokens, c.groups, c.width}), values({others, c.groups, c.width})};
  const Share* shares[] = {&mine, &other};
  const Tensor y = zeros(q.shape()), lse = zeros({c.heads, tokens});
  const auto loss = [&] {
    const Tensor part = zeros(q.shape()), part_lse = zeros(lse.shape());
    for (int i = 0; i < 2; ++i) {
      reference().AttentionPart(q, k[i], v[i], mine.offsets.reference, shares[i]->offsets.reference,
                                mine.positions.reference, shares[i]->positions.reference, scale,
                                i == 0 ? y : part, i == 0 ? lse : part_lse);
    }
    reference().MergeAttention(part, part_lse, y, lse);
    double sum = 0;
    for (int64_t i = 0; i < y.size(); ++i) sum += y.data<double>()[i] * dy.data<double>()[i];
    return sum;
  };
  loss();
  const Tensor dq = zeros(q.shape());
  const Tensor dk[] = {zeros(k[0].shape()), zeros(k[1].shape())},
               dv[] = {zeros(k[0].shape()), zeros(k[1].shape())};
  const Tensor delta = zeros(lse.shape());
  reference().AttentionDelta(dy, y, delta);
  for (int i = 0; i < 2; ++i) {
    reference().AttentionPartGrad(dy, q, k[i], v[i], lse, delta, mine.offsets.reference,
                                  shares[i]->offsets.reference, mine.positions.reference,
                                  shares[i]->positions.reference, scale, dq, dk[i], dv[i]);
  }
  const Tensor inputs[] = {q, k[0], k[1], v[0], v[1]}, grads[] = {dq, dk[0], dk[1], dv[0], dv[1]};
  for (int which = 0; which < 5; ++which) {
    for (int64_t i = 0; i < inputs[which].size(); ++i) {
      double& x = inputs[which].data<double>()[i];
      const double before = x;
      x = before + step;
      const double up = loss();
      x = before - step;
      const double down = loss();
      x = before;
      EXPECT_NEAR(grads[which].data<double>()[i], (up - down) / (2 * step), 1e-7) << which << ", " << i;
    }
  }
}

TEST_P(AttentionPartTest, PositionsThatDescendAbort) {
  const Twin x = Random({3, 1, 8}, DataType::kF32), lse = Output({1, 3}, DataType::kF32);
  const Twin offsets = FromIndices({2}, {0, 3}), good = FromIndices({3}, {0, 4, 9}),
             bad = FromIndices({3}, {0, 9, 4});
  EXPECT_DEATH(tested().AttentionPart(x.tested, x.tested, x.tested, offsets.tested, offsets.tested,
                                      good.tested, bad.tested, 1, Clone(x).tested, lse.tested),
               tested_device().kind() == DeviceKind::kCpu ? "position 4 of key 2 follows 9" : "");
}

COHORT_ON_EVERY_DEVICE(AttentionPartTest);

}  // namespace
}  // namespace cohort::runtime
