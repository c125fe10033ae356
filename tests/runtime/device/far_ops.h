// Every operation of runtime/ops/ops.h, put off: the CPU's, on the same bytes where the host may touch them.
#pragma once

#include <cstddef>
#include <tuple>

#include "comm/check.h"
#include "runtime/ops/fixed_tiles.h"
#include "runtime/ops/ops.h"
#include "tests/runtime/device/late_queue.h"

namespace cohort::runtime {

class FarOps final : public Ops {
 public:
  FarOps(Device& device, LateQueue& queue) : device_(device), queue_(queue) {}
  // From the device's addresses to those of the host.
  void SetDistance(ptrdiff_t distance) { distance_ = distance; }
  // Does not keep the memory: the queue's order alone does.
  Tensor TwinOf(const Tensor& tensor) const {
    if (!tensor.defined()) return tensor;
    COHORT_CHECK(&tensor.device() == &device_, "an operation of the far device on %s",
                 tensor.DebugString().c_str());
    return Tensor::Wrap(CpuDevice(), nullptr, static_cast<char*>(tensor.raw()) + distance_, tensor.shape(),
                        tensor.dtype());
  }

  // matrix products.
  void MatMul(const Tensor& a, const Tensor& b, const Tensor& c, MatMulOptions options) override {
    Later(&Ops::MatMul, a, b, c, options);
  }
  void GroupedMatMul(const Tensor& x, const Tensor& offsets, const Tensor& w, bool transpose_w,
                     const Tensor& y) override {
    Later(&Ops::GroupedMatMul, x, offsets, w, transpose_w, y);
  }
  void GroupedMatMulWeightGrad(const Tensor& dy, const Tensor& x, const Tensor& offsets,
                               const Tensor& dw) override {
    Later(&Ops::GroupedMatMulWeightGrad, dy, x, offsets, dw);
  }
  // elementwise.
  void Fill(const Tensor& x, double value) override { Later(&Ops::Fill, x, value); }
  void Copy(const Tensor& x, const Tensor& y) override { Later(&Ops::Copy, x, y); }
  void Accumulate(const Tensor& x, double scale, const Tensor& y) override {
    Later(&Ops::Accumulate, x, scale, y);
  }
  void Add(const Tensor& a, const Tensor& b, const Tensor& c) override { Later(&Ops::Add, a, b, c); }
  void Scale(const Tensor& x, double factor) override { Later(&Ops::Scale, x, factor); }
  void FillNormal(const Tensor& x, uint64_t seed, uint32_t purpose, uint64_t first_index,
                  double stddev) override {
    Later(&Ops::FillNormal, x, seed, purpose, first_index, stddev);
  }
  void SumSquares(const Tensor& x, const Tensor& out) override { Later(&Ops::SumSquares, x, out); }
  // embedding.
  void GatherRows(const Tensor& table, const Tensor& rows, const Tensor& y) override {
    Later(&Ops::GatherRows, table, rows, y);
  }
  void EmbeddingGrad(const Tensor& dy, const Tensor& tokens, const Tensor& dtable) override {
    Later(&Ops::EmbeddingGrad, dy, tokens, dtable);
  }
  // RMSNorm (Zhang & Sennrich, 2019).
  void RmsNorm(const Tensor& x, const Tensor& w, double eps, const Tensor& y, const Tensor& rstd) override {
    Later(&Ops::RmsNorm, x, w, eps, y, rstd);
  }
  void AddRmsNorm(const Tensor& x, const Tensor& residual, const Tensor& w, double eps, const Tensor& sum,
                  const Tensor& y, const Tensor& rstd) override {
    Later(&Ops::AddRmsNorm, x, residual, w, eps, sum, y, rstd);
  }
  void RmsNormGrad(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd, const Tensor& add,
                   const Tensor& dx) override {
    Later(&Ops::RmsNormGrad, dy, x, w, rstd, add, dx);
  }
  void RmsNormWeightGrad(const Tensor& dy, const Tensor& x, const Tensor& rstd, const Tensor& dw) override {
    Later(&Ops::RmsNormWeightGrad, dy, x, rstd, dw);
  }
  // rotary positions (Su et al., 2021; the halves layout of Hugging Face).
  void Rope(const Tensor& x, const Tensor& positions, const Tensor& table, bool inverse) override {
    Later(&Ops::Rope, x, positions, table, inverse);
  }
  // SwiGLU (Shazeer, 2020).
  void SwiGlu(const Tensor& gate, const Tensor& up, const Tensor& y) override {
    Later(&Ops::SwiGlu, gate, up, y);
  }
  void SwiGluGrad(const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate,
                  const Tensor& dup) override {
    Later(&Ops::SwiGluGrad, dy, gate, up, dgate, dup);
  }
  // attention.
  void Attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& offsets, double scale,
                 const Tensor& y, const Tensor& lse) override {
    Later(&Ops::Attention, q, k, v, offsets, scale, y, lse);
  }
  void AttentionGrad(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& y,
                     const Tensor& lse, const Tensor& offsets, double scale, const Tensor& dq,
                     const Tensor& dk, const Tensor& dv) override {
    Later(&Ops::AttentionGrad, dy, q, k, v, y, lse, offsets, scale, dq, dk, dv);
  }
  void AttentionPart(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& q_offsets,
                     const Tensor& k_offsets, const Tensor& q_positions, const Tensor& k_positions,
                     double scale, const Tensor& y, const Tensor& lse) override {
    Later(&Ops::AttentionPart, q, k, v, q_offsets, k_offsets, q_positions, k_positions, scale, y, lse);
  }
  void MergeAttention(const Tensor& y_part, const Tensor& lse_part, const Tensor& y,
                      const Tensor& lse) override {
    Later(&Ops::MergeAttention, y_part, lse_part, y, lse);
  }
  void AttentionDelta(const Tensor& dy, const Tensor& y, const Tensor& delta) override {
    Later(&Ops::AttentionDelta, dy, y, delta);
  }
  void AttentionPartGrad(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v,
                         const Tensor& lse, const Tensor& delta, const Tensor& q_offsets,
                         const Tensor& k_offsets, const Tensor& q_positions, const Tensor& k_positions,
                         double scale, const Tensor& dq, const Tensor& dk, const Tensor& dv) override {
    Later(&Ops::AttentionPartGrad, dy, q, k, v, lse, delta, q_offsets, k_offsets, q_positions, k_positions,
          scale, dq, dk, dv);
  }
  void StoreKv(const Tensor& k, const Tensor& v, const Tensor& slots, const KvPages& pages) override {
    Later(&Ops::StoreKv, k, v, slots, pages);
  }
  void PagedAttention(const Tensor& q, const KvPages& pages, const Tensor& page_table,
                      const Tensor& query_offsets, const Tensor& context_lengths, double scale,
                      const Tensor& y) override {
    Later(&Ops::PagedAttention, q, pages, page_table, query_offsets, context_lengths, scale, y);
  }
  // loss.
  void CrossEntropy(const Tensor& logits, const Tensor& targets, double grad_scale, const Tensor& losses,
                    const Tensor& dlogits) override {
    Later(&Ops::CrossEntropy, logits, targets, grad_scale, losses, dlogits);
  }
  void VocabularyStats(const Tensor& logits, const Tensor& targets, int64_t first, const Tensor& max,
                       const Tensor& sum, const Tensor& target_logit) override {
    Later(&Ops::VocabularyStats, logits, targets, first, max, sum, target_logit);
  }
  void VocabularyRescale(const Tensor& max, const Tensor& global_max, const Tensor& sum) override {
    Later(&Ops::VocabularyRescale, max, global_max, sum);
  }
  void VocabularyLoss(const Tensor& targets, const Tensor& max, const Tensor& sum, const Tensor& target_logit,
                      const Tensor& lse, const Tensor& losses) override {
    Later(&Ops::VocabularyLoss, targets, max, sum, target_logit, lse, losses);
  }
  void VocabularyGrad(const Tensor& logits, const Tensor& targets, int64_t first, const Tensor& lse,
                      double grad_scale, const Tensor& dlogits) override {
    Later(&Ops::VocabularyGrad, logits, targets, first, lse, grad_scale, dlogits);
  }
  // sampling.
  void SampleTokens(const Tensor& logits, const SamplingRows& rows, const Tensor& tokens,
                    const Tensor& logprobs, const Tensor& ranks) override {
    Later(&Ops::SampleTokens, logits, rows, tokens, logprobs, ranks);
  }
  // mixture of experts.
  void Softmax(const Tensor& x, const Tensor& y) override { Later(&Ops::Softmax, x, y); }
  void SoftmaxGrad(const Tensor& dy, const Tensor& y, const Tensor& dx) override {
    Later(&Ops::SoftmaxGrad, dy, y, dx);
  }
  void Sigmoid(const Tensor& x, const Tensor& y) override { Later(&Ops::Sigmoid, x, y); }
  void SigmoidGrad(const Tensor& dy, const Tensor& y, const Tensor& dx) override {
    Later(&Ops::SigmoidGrad, dy, y, dx);
  }
  void LogSumExp(const Tensor& x, const Tensor& lse) override { Later(&Ops::LogSumExp, x, lse); }
  void TopK(const Tensor& scores, const Tensor& bias, const Tensor& indices) override {
    Later(&Ops::TopK, scores, bias, indices);
  }
  void GatherColumns(const Tensor& x, const Tensor& indices, const Tensor& y) override {
    Later(&Ops::GatherColumns, x, indices, y);
  }
  void GatherColumnsGrad(const Tensor& dy, const Tensor& indices, const Tensor& dx) override {
    Later(&Ops::GatherColumnsGrad, dy, indices, dx);
  }
  void NormalizeRows(const Tensor& x, const Tensor& y) override { Later(&Ops::NormalizeRows, x, y); }
  void NormalizeRowsGrad(const Tensor& dy, const Tensor& x, const Tensor& y, const Tensor& dx) override {
    Later(&Ops::NormalizeRowsGrad, dy, x, y, dx);
  }
  void SortByExpert(const Tensor& indices, const Tensor& offsets, const Tensor& order,
                    const Tensor& places) override {
    Later(&Ops::SortByExpert, indices, offsets, order, places);
  }
  void CombineRows(const Tensor& x, const Tensor& places, const Tensor& weights, const Tensor& y) override {
    Later(&Ops::CombineRows, x, places, weights, y);
  }
  void CombineRowsGrad(const Tensor& dy, const Tensor& x, const Tensor& places, const Tensor& weights,
                       const Tensor& dx, const Tensor& dweights) override {
    Later(&Ops::CombineRowsGrad, dy, x, places, weights, dx, dweights);
  }
  // router losses and capacity.
  void BalanceLoss(const Tensor& probs, const Tensor& indices, const Tensor& offsets, double grad_scale,
                   const Tensor& losses, const Tensor& dprobs) override {
    Later(&Ops::BalanceLoss, probs, indices, offsets, grad_scale, losses, dprobs);
  }
  void BalanceCounts(const Tensor& probs, const Tensor& indices, const Tensor& offsets, const Tensor& counts,
                     const Tensor& prob_sums) override {
    Later(&Ops::BalanceCounts, probs, indices, offsets, counts, prob_sums);
  }
  void BalanceLossFromCounts(const Tensor& counts, const Tensor& prob_sums, const Tensor& lengths,
                             int64_t choices, double grad_scale, const Tensor& offsets, const Tensor& losses,
                             const Tensor& dprobs) override {
    Later(&Ops::BalanceLossFromCounts, counts, prob_sums, lengths, choices, grad_scale, offsets, losses,
          dprobs);
  }
  void RouterZLoss(const Tensor& logits, double grad_scale, const Tensor& losses,
                   const Tensor& dlogits) override {
    Later(&Ops::RouterZLoss, logits, grad_scale, losses, dlogits);
  }
  void DropOverCapacity(const Tensor& indices, const Tensor& offsets, int64_t experts, double factor,
                        const Tensor& kept) override {
    Later(&Ops::DropOverCapacity, indices, offsets, experts, factor, kept);
  }
  // optimizer.
  void AdamW(const Tensor& master, const Tensor& grad, const Tensor& m, const Tensor& v, const Tensor& value,
             const AdamWOptions& options) override {
    Later(&Ops::AdamW, master, grad, m, v, value, options);
  }

 private:
  KvPages TwinOf(const KvPages& pages) const { return {TwinOf(pages.keys), TwinOf(pages.values)}; }
  SamplingRows TwinOf(const SamplingRows& rows) const {
    return {TwinOf(rows.temperatures), TwinOf(rows.top_k), TwinOf(rows.top_p), TwinOf(rows.min_p),
            TwinOf(rows.draws)};
  }
  template <typename T>
  T TwinOf(const T& number) const {
    return number;
  }
  template <typename Method, typename... Arguments>
  void Later(Method method, const Arguments&... arguments) {
    queue_.Push([method, tiles = FixedTiles::On(), twins = std::make_tuple(TwinOf(arguments)...)] {
      const FixedTiles fixed(tiles);
      std::apply([&](const auto&... of) { (CpuDevice().ops().*method)(of...); }, twins);
    });
  }

  Device& device_;
  LateQueue& queue_;
  ptrdiff_t distance_ = 0;
};

}  // namespace cohort::runtime
