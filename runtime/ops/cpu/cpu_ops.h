// Every operation of runtime/ops/ops.h on the CPU: oneDNN and vector code, CpuThreads() threads. One file a
// topic. Compute types are f32 and bf16, the state type is f32.
#pragma once

#include "runtime/ops/ops.h"

namespace cohort::runtime {

class CpuOps final : public Ops {
 public:
  // matrix products.
  void MatMul(const Tensor& a, const Tensor& b, const Tensor& c, MatMulOptions options) override;
  void GroupedMatMul(const Tensor& x, const Tensor& offsets, const Tensor& w, bool transpose_w,
                     const Tensor& y) override;
  void GroupedMatMulWeightGrad(const Tensor& dy, const Tensor& x, const Tensor& offsets,
                               const Tensor& dw) override;
  // elementwise.
  void Fill(const Tensor& x, double value) override;
  void Copy(const Tensor& x, const Tensor& y) override;
  void Accumulate(const Tensor& x, double scale, const Tensor& y) override;
  void Add(const Tensor& a, const Tensor& b, const Tensor& c) override;
  void Scale(const Tensor& x, double factor) override;
  void FillNormal(const Tensor& x, uint64_t seed, uint32_t purpose, uint64_t first_index,
                  double stddev) override;
  void SumSquares(const Tensor& x, const Tensor& out) override;
  // embedding.
  void GatherRows(const Tensor& table, const Tensor& rows, const Tensor& y) override;
  void EmbeddingGrad(const Tensor& dy, const Tensor& tokens, const Tensor& dtable) override;
  // RMSNorm (Zhang & Sennrich, 2019).
  void RmsNorm(const Tensor& x, const Tensor& w, double eps, const Tensor& y, const Tensor& rstd) override;
  void AddRmsNorm(const Tensor& x, const Tensor& residual, const Tensor& w, double eps, const Tensor& sum,
                  const Tensor& y, const Tensor& rstd) override;
  void RmsNormGrad(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd, const Tensor& add,
                   const Tensor& dx) override;
  void RmsNormWeightGrad(const Tensor& dy, const Tensor& x, const Tensor& rstd, const Tensor& dw) override;
  // rotary positions (Su et al., 2021; the halves layout of Hugging Face).
  void Rope(const Tensor& x, const Tensor& positions, const Tensor& table, bool inverse) override;
  // SwiGLU (Shazeer, 2020).
  void SwiGlu(const Tensor& gate, const Tensor& up, const Tensor& y) override;
  void SwiGluGrad(const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate,
                  const Tensor& dup) override;
  // attention.
  void Attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& offsets, double scale,
                 const Tensor& y, const Tensor& lse) override;
  void AttentionGrad(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& y,
                     const Tensor& lse, const Tensor& offsets, double scale, const Tensor& dq,
                     const Tensor& dk, const Tensor& dv) override;
  void AttentionPart(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& q_offsets,
                     const Tensor& k_offsets, const Tensor& q_positions, const Tensor& k_positions,
                     double scale, const Tensor& y, const Tensor& lse) override;
  void MergeAttention(const Tensor& y_part, const Tensor& lse_part, const Tensor& y,
                      const Tensor& lse) override;
  void AttentionDelta(const Tensor& dy, const Tensor& y, const Tensor& delta) override;
  void AttentionPartGrad(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v,
                         const Tensor& lse, const Tensor& delta, const Tensor& q_offsets,
                         const Tensor& k_offsets, const Tensor& q_positions, const Tensor& k_positions,
                         double scale, const Tensor& dq, const Tensor& dk, const Tensor& dv) override;
  void StoreKv(const Tensor& k, const Tensor& v, const Tensor& slots, const KvPages& pages) override;
  void PagedAttention(const Tensor& q, const KvPages& pages, const Tensor& page_table,
                      const Tensor& query_offsets, const Tensor& context_lengths, double scale,
                      const Tensor& y) override;
  // loss.
  void CrossEntropy(const Tensor& logits, const Tensor& targets, double grad_scale, const Tensor& losses,
                    const Tensor& dlogits) override;
  void VocabularyStats(const Tensor& logits, const Tensor& targets, int64_t first, const Tensor& max,
                       const Tensor& sum, const Tensor& target_logit) override;
  void VocabularyRescale(const Tensor& max, const Tensor& global_max, const Tensor& sum) override;
  void VocabularyLoss(const Tensor& targets, const Tensor& max, const Tensor& sum, const Tensor& target_logit,
                      const Tensor& lse, const Tensor& losses) override;
  void VocabularyGrad(const Tensor& logits, const Tensor& targets, int64_t first, const Tensor& lse,
                      double grad_scale, const Tensor& dlogits) override;
  // sampling.
  void SampleTokens(const Tensor& logits, const SamplingRows& rows, const Tensor& tokens,
                    const Tensor& logprobs, const Tensor& ranks) override;
  // mixture of experts.
  void Softmax(const Tensor& x, const Tensor& y) override;
  void SoftmaxGrad(const Tensor& dy, const Tensor& y, const Tensor& dx) override;
  void Sigmoid(const Tensor& x, const Tensor& y) override;
  void SigmoidGrad(const Tensor& dy, const Tensor& y, const Tensor& dx) override;
  void LogSumExp(const Tensor& x, const Tensor& lse) override;
  void TopK(const Tensor& scores, const Tensor& bias, const Tensor& indices) override;
  void GatherColumns(const Tensor& x, const Tensor& indices, const Tensor& y) override;
  void GatherColumnsGrad(const Tensor& dy, const Tensor& indices, const Tensor& dx) override;
  void NormalizeRows(const Tensor& x, const Tensor& y) override;
  void NormalizeRowsGrad(const Tensor& dy, const Tensor& x, const Tensor& y, const Tensor& dx) override;
  void SortByExpert(const Tensor& indices, const Tensor& offsets, const Tensor& order,
                    const Tensor& places) override;
  void CombineRows(const Tensor& x, const Tensor& places, const Tensor& weights, const Tensor& y) override;
  void CombineRowsGrad(const Tensor& dy, const Tensor& x, const Tensor& places, const Tensor& weights,
                       const Tensor& dx, const Tensor& dweights) override;
  // router losses and capacity.
  void BalanceLoss(const Tensor& probs, const Tensor& indices, const Tensor& offsets, double grad_scale,
                   const Tensor& losses, const Tensor& dprobs) override;
  void BalanceCounts(const Tensor& probs, const Tensor& indices, const Tensor& offsets, const Tensor& counts,
                     const Tensor& prob_sums) override;
  void BalanceLossFromCounts(const Tensor& counts, const Tensor& prob_sums, const Tensor& lengths,
                             int64_t choices, double grad_scale, const Tensor& offsets, const Tensor& losses,
                             const Tensor& dprobs) override;
  void RouterZLoss(const Tensor& logits, double grad_scale, const Tensor& losses,
                   const Tensor& dlogits) override;
  void DropOverCapacity(const Tensor& indices, const Tensor& offsets, int64_t experts, double factor,
                        const Tensor& kept) override;
  // optimizer.
  void AdamW(const Tensor& master, const Tensor& grad, const Tensor& m, const Tensor& v, const Tensor& value,
             const AdamWOptions& options) override;
};

}  // namespace cohort::runtime
