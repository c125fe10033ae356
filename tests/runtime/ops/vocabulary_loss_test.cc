// The loss over a split vocabulary and the balance loss over split sequences: each step against the reference,
// and all steps together against the operations on whole rows and sequences.
#include "tests/runtime/ops/compare.h"

namespace cohort::runtime {
namespace {

class OpsVocabularyTest : public OpsTest {
 protected:
  // Columns [begin, end) of x.
  static Tensor Columns(const Tensor& x, int64_t begin, int64_t end) {
    const std::vector<double> from = ToHost(x);
    std::vector<double> values;
    for (int64_t t = 0; t < x.dim(0); ++t) {
      for (int64_t i = begin; i < end; ++i) values.push_back(from[t * x.dim(1) + i]);
    }
    return Tensor::FromHost(x.device(), {x.dim(0), end - begin}, x.dtype(), values);
  }
};

// Also with a rank that has no column, and columns at -inf.
TEST_P(OpsVocabularyTest, StepsMatchTheReferenceAndTheWholeLoss) {
  constexpr int64_t kRows = 37, kClasses = 301;
  const int64_t bounds[] = {0, 150, 150, 228, 301};
  constexpr int kRanks = 4;
  for (DataType dtype : kComputeTypes) {
    for (int threads : thread_counts()) {
      SetCpuThreads(threads);
      Twin logits = Random({kRows, kClasses}, dtype, 5);
      Twin targets = Indices({kRows}, -1, kClasses - 1);
      for (Tensor* x : {&logits.tested, &logits.reference}) {  // row 3 has nothing on rank 3
        std::vector<double> values = ToHost(*x);
        std::fill(values.begin() + 3 * kClasses + 228, values.begin() + 4 * kClasses, -INFINITY);
        *x = Tensor::FromHost(x->device(), x->shape(), x->dtype(), values);
      }
      for (Tensor* x : {&targets.tested, &targets.reference}) {
        *x = Edited(*x, [](std::vector<double>& values) { values[3] = 5; });
      }
      const Twin losses = Output({kRows}, DataType::kF32), dlogits = Output({kRows, kClasses}, dtype);
      reference().CrossEntropy(logits.reference, targets.reference, 0.125, losses.reference,
                               dlogits.reference);
      for (Ops* ops : {&tested(), &reference()}) {
        const bool on_tested = ops == &tested();
        const auto on = [&](const Twin& x) { return on_tested ? x.tested : x.reference; };
        Device& device = on_tested ? tested_device() : ReferenceDevice();
        const auto empty = [&](Shape shape) { return Tensor::Empty(device, shape, device.state_dtype()); };
        std::vector<Tensor> parts, maxima, sums;
        std::vector<double> top(kRows, -INFINITY), sum(kRows, 0), at_target(kRows, 0);
        for (int r = 0; r < kRanks; ++r) {
          parts.push_back(Columns(on(logits), bounds[r], bounds[r + 1]));
          maxima.push_back(empty({kRows}));
          sums.push_back(empty({kRows}));
          const Tensor logit = empty({kRows});
          ops->VocabularyStats(parts[r], on(targets), bounds[r], maxima[r], sums[r], logit);
          const std::vector<double> max = ToHost(maxima[r]), value = ToHost(logit);
          for (int64_t t = 0; t < kRows; ++t) {
            top[t] = std::max(top[t], max[t]);
            at_target[t] += value[t];
          }
        }
        const auto make = [&](const std::vector<double>& x) {
          return Tensor::FromHost(device, {kRows}, device.state_dtype(), x);
        };
        for (int r = 0; r < kRanks; ++r) {
          ops->VocabularyRescale(maxima[r], make(top), sums[r]);
          for (int64_t t = 0; t < kRows; ++t) sum[t] += ToHost(sums[r])[t];
        }
        const Tensor lse = empty({kRows}), loss = empty({kRows});
        ops->VocabularyLoss(on(targets), make(top), make(sum), make(at_target), lse, loss);
        ExpectClose(loss, losses.reference, DataType::kF32, "losses");
        for (int r = 0; r < kRanks; ++r) {
          const Tensor grad = Tensor::Empty(device, parts[r].shape(), parts[r].dtype());
          ops->VocabularyGrad(parts[r], on(targets), bounds[r], lse, 0.125, grad);
          ExpectClose(grad, Columns(dlogits.reference, bounds[r], bounds[r + 1]),
                      on_tested ? dtype : DataType::kF32, "dlogits");
          ops->VocabularyGrad(parts[r], on(targets), bounds[r], lse, 0.125, parts[r]);
          ExpectSameBits(parts[r], grad, "in place");
        }
      }
    }
  }
}

// Sequences split over two ranks, one of them empty on each and one everywhere.
TEST_P(OpsVocabularyTest, BalanceLossOfSplitSequencesEqualsTheWhole) {
  constexpr int64_t kExperts = 7, kChoices = 2, kTokens = 61;
  const Twin probs = Random({kTokens, kExperts}, DataType::kF32),
             indices = Indices({kTokens, kChoices}, 0, kExperts - 1);
  const std::vector<int32_t> starts = {0, 11, 11, 40, 55, 61}, cuts = {4, 11, 40, 40, 58};
  const int64_t sequences = cuts.size();
  std::vector<int32_t> lengths;
  for (int64_t s = 0; s < sequences; ++s) lengths.push_back(starts[s + 1] - starts[s]);
  const Twin offsets = FromIndices({sequences + 1}, starts), length = FromIndices({sequences}, lengths);
  const Twin want = Output({sequences}, DataType::kF32),
             want_grad = Random({kTokens, kExperts}, DataType::kF32);
  const Twin before = Clone(want_grad);
  reference().BalanceLoss(probs.reference, indices.reference, offsets.reference, 0.3, want.reference,
                          want_grad.reference);
  for (Ops* ops : {&tested(), &reference()}) {
    const bool on_tested = ops == &tested();
    Device& device = on_tested ? tested_device() : ReferenceDevice();
    const auto on = [&](const Twin& x) { return on_tested ? x.tested : x.reference; };
    const auto zeros = [&] { return Tensor::Zeros(device, {sequences, kExperts}, device.state_dtype()); };
    const Tensor counts = zeros(), sums = zeros();
    std::vector<std::vector<int32_t>> rows(2);
    std::vector<Tensor> own_offsets;
    const auto take = [&](const Tensor& x, int r) {
      const int64_t count = rows[r].size();
      const std::vector<double> from = ToHost(x);
      std::vector<double> values;
      for (int32_t t : rows[r])
        values.insert(values.end(), from.begin() + t * x.dim(1), from.begin() + (t + 1) * x.dim(1));
      if (x.dtype() == DataType::kI32) {
        return Tensor::FromHost(device, {count, x.dim(1)},
                                std::vector<int32_t>(values.begin(), values.end()));
      }
      return Tensor::FromHost(device, {count, x.dim(1)}, x.dtype(), values);
    };
    for (int r = 0; r < 2; ++r) {
      std::vector<int32_t> own = {0};
      for (int64_t s = 0; s < sequences; ++s) {
        for (int32_t t = r == 0 ? starts[s] : cuts[s]; t < (r == 0 ? cuts[s] : starts[s + 1]); ++t)
          rows[r].push_back(t);
        own.push_back(static_cast<int32_t>(rows[r].size()));
      }
      own_offsets.push_back(Tensor::FromHost(device, {sequences + 1}, own));
      const Tensor own_counts = zeros(), own_sums = zeros();
      ops->BalanceCounts(take(on(probs), r), take(on(indices), r), own_offsets[r], own_counts, own_sums);
      ops->Accumulate(own_counts, 1, counts);
      ops->Accumulate(own_sums, 1, sums);
    }
    for (int r = 0; r < 2; ++r) {
      const Tensor losses = Tensor::Empty(device, {sequences}, device.state_dtype()), again = losses.Clone();
      const Tensor dprobs = take(on(before), r);
      ops->BalanceLossFromCounts(counts, sums, on(length), kChoices, 0.3, own_offsets[r], losses, dprobs);
      ExpectClose(losses, want.reference, DataType::kF32, "losses");
      const Tensor want_rows = Tensor::FromHost(device, dprobs.shape(), dprobs.dtype(), [&] {
        std::vector<double> values;
        const std::vector<double> from = ToHost(want_grad.reference);
        for (int32_t t : rows[r])
          values.insert(values.end(), from.begin() + t * kExperts, from.begin() + (t + 1) * kExperts);
        return values;
      }());
      ExpectClose(dprobs, want_rows, DataType::kF32, "dprobs");
      ops->BalanceLossFromCounts(counts, sums, on(length), kChoices, 0.3, own_offsets[r], again, Tensor());
      ExpectSameBits(losses, again, "losses without a gradient");
    }
  }
}

COHORT_ON_EVERY_DEVICE(OpsVocabularyTest);

}  // namespace
}  // namespace cohort::runtime
