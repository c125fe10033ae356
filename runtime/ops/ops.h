// Every operation, once: its shapes, its formula, what it may alias. `reference` (f64 loops) is
// the judge; `cpu` (oneDNN and vector code) and later devices implement the same list, which being
// pure virtual the compiler checks.
//
// Legend. T tokens (rows), U keys, D model width, H query heads, G key/value heads (G divides H), C head width, V
// vocabulary, E experts, K experts a token, M routed rows, S sequences, P pages. "float" is the compute type:
// bf16 or f32 on the CPU, f64 on the reference. "state" is f32 on the CPU, f64 on the reference
// (Device::state_dtype). Sums are made in state precision whatever the inputs. Index tensors are kI32.
// Outputs are allocated by the caller and overwritten, unless the operation says that it accumulates. Every
// dimension may be zero. Wrong shapes or types are bugs of the caller and abort. Results depend only on the
// inputs and the number of threads.
#pragma once

#include <cstdint>

#include "runtime/tensor.h"

namespace cohort::runtime {

struct MatMulOptions {
  bool transpose_a = false;
  bool transpose_b = false;
  bool accumulate = false;  // c += instead of c =
};

// As in Loshchilov & Hutter (2019), with bias correction; step counts from 1.
struct AdamWOptions {
  double lr, beta1, beta2, eps, weight_decay;
  int64_t step;
  double grad_scale = 1;  // the gradient is multiplied by it first (clipping)
};

// Key/value pages of one layer. Token j of a sequence lives in page page_table[s][j / page_size],
// at j % page_size.
struct KvPages {
  Tensor keys;    // float [P, G, page_size, C]
  Tensor values;  // float [P, G, page_size, C]
  int64_t page_size() const { return keys.dim(2); }
};

// How SampleTokens draws from each of R rows. Tensors, so that a recorded step finds new values in the same place.
struct SamplingRows {
  Tensor temperatures;  // state [R]; below kGreedyTemperature (sampling.h): the largest logit
  Tensor top_k;         // kI32 [R]; 0: all
  Tensor top_p, min_p;  // state [R]; 1 and 0: all
  Tensor draws;         // kI32 [R, 6]: seed, position and stream, of each the low word, then the high one
};

class Ops {
 public:
  virtual ~Ops() = default;

  // ---- matrix products ----

  // c[m,n] (+)= op(a)[m,k] op(b)[k,n]. a, b: one float type; c: that type or state. accumulate needs c
  // in state, or c of the same type as a and b.
  virtual void MatMul(const Tensor& a, const Tensor& b, const Tensor& c, MatMulOptions options = {}) = 0;
  // Rows [offsets[g], offsets[g+1]) of x meet weight g. x [M, in], offsets [E+1] ascending from 0 to M.
  // transpose_w false: w [E, out, in], y[m] = w_g x[m]. true: w [E, in, out], y[m] = w_g^T x[m] (the input
  // gradient of the former). Groups may be empty.
  virtual void GroupedMatMul(const Tensor& x, const Tensor& offsets, const Tensor& w, bool transpose_w,
                             const Tensor& y) = 0;
  // dw[g] += dy_g^T x_g. dy [M, out], x [M, in], dw state [E, out, in].
  virtual void GroupedMatMulWeightGrad(const Tensor& dy, const Tensor& x, const Tensor& offsets,
                                       const Tensor& dw) = 0;

  // ---- elementwise ----
  virtual void Fill(const Tensor& x, double value) = 0;
  // y = x, converted between any float types (or equal integer types).
  virtual void Copy(const Tensor& x, const Tensor& y) = 0;
  // y += scale x. Any float types.
  virtual void Accumulate(const Tensor& x, double scale, const Tensor& y) = 0;
  // c = a + b. c may alias either.
  virtual void Add(const Tensor& a, const Tensor& b, const Tensor& c) = 0;
  // x *= factor.
  virtual void Scale(const Tensor& x, double factor) = 0;
  // x[i] = stddev * N(0,1) drawn by Philox4x32-10 of (seed, purpose, first_index + i), by Box-Muller in f64
  // and rounded to x's type: the same numbers on every device and in every split.
  virtual void FillNormal(const Tensor& x, uint64_t seed, uint32_t purpose, uint64_t first_index,
                          double stddev) = 0;
  // out[0] += sum of x^2. out kF64 [1].
  virtual void SumSquares(const Tensor& x, const Tensor& out) = 0;

  // ---- embedding ----

  // y[t] = table[tokens[t]]. tokens [T], table [V, D], y [T, D]. Also the row gather of token
  // dispatch: a negative index gives a row of zeros.
  virtual void GatherRows(const Tensor& table, const Tensor& rows, const Tensor& y) = 0;
  // dtable[tokens[t]] += dy[t], in order of t. dtable state [V, D]. Negative tokens are skipped: with them and
  // GatherRows' zeros the ranks of a split vocabulary make rows that add up.
  virtual void EmbeddingGrad(const Tensor& dy, const Tensor& tokens, const Tensor& dtable) = 0;

  // ---- RMSNorm (Zhang & Sennrich, 2019) ----

  // rstd[t] = 1/sqrt(mean(x[t]^2) + eps); y = x rstd w. x, y [T, D], w [D], rstd state [T]. y may
  // alias x.
  virtual void RmsNorm(const Tensor& x, const Tensor& w, double eps, const Tensor& y, const Tensor& rstd) = 0;
  // sum = x + residual (may alias either), then as above on sum.
  virtual void AddRmsNorm(const Tensor& x, const Tensor& residual, const Tensor& w, double eps,
                          const Tensor& sum, const Tensor& y, const Tensor& rstd) = 0;
  // dx = gradient through the norm (+ add, where defined: the residual's own gradient). dx
  // may alias dy or add.
  virtual void RmsNormGrad(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd,
                           const Tensor& add, const Tensor& dx) = 0;
  // dw += sum_t dy x rstd. dw state [D].
  virtual void RmsNormWeightGrad(const Tensor& dy, const Tensor& x, const Tensor& rstd, const Tensor& dw) = 0;

  // ---- rotary positions (Su et al., 2021; the halves layout of Hugging Face) ----

  // In place. x [T, heads, C], positions [T], table state [max_position, C]: C/2 cosines, then C/2
  // sines. inverse: the transposed rotation, which is the gradient.
  virtual void Rope(const Tensor& x, const Tensor& positions, const Tensor& table, bool inverse) = 0;

  // ---- SwiGLU (Shazeer, 2020) ----

  // y = silu(gate) up. All [T, F]; y may alias gate or up.
  virtual void SwiGlu(const Tensor& gate, const Tensor& up, const Tensor& y) = 0;
  // dgate and dup may alias gate, up or dy.
  virtual void SwiGluGrad(const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate,
                          const Tensor& dup) = 0;

  // ---- attention ----
  // Causal attention inside each sequence: tokens [offsets[s], offsets[s+1]) of the packed batch. q, y [T, H,
  // C], k, v [T, G, C], offsets [S+1], lse state [H, T] (log-sum-exp of the scaled scores). Scores are
  // computed a tile at a time and never stored whole (Dao et al., 2022).
  virtual void Attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& offsets,
                         double scale, const Tensor& y, const Tensor& lse) = 0;
  virtual void AttentionGrad(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v,
                             const Tensor& y, const Tensor& lse, const Tensor& offsets, double scale,
                             const Tensor& dq, const Tensor& dk, const Tensor& dv) = 0;
  // Attention to some of the keys of a sequence, by positions: query t of sequence s sees the keys j of
  // [k_offsets[s], k_offsets[s+1]) with k_positions[j] <= q_positions[t]. q, y [T, H, C], k, v [U, G, C],
  // q_offsets, k_offsets [S+1], q_positions [T] and k_positions [U] not descending within a sequence; lse state
  // [H, T]. y is of q's type or state. A query that sees no key: y 0, lse -inf. Keys that nobody sees and
  // queries that see nothing cost nothing.
  virtual void AttentionPart(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& q_offsets,
                             const Tensor& k_offsets, const Tensor& q_positions, const Tensor& k_positions,
                             double scale, const Tensor& y, const Tensor& lse) = 0;
  // (y, lse) := attention to the keys of both parts, which are disjoint (Liu et al., 2023, Ring Attention: the
  // outputs weighted by exp(lse)). y_part, y [T, H, C], each float or state; lse_part, lse state [H, T].
  virtual void MergeAttention(const Tensor& y_part, const Tensor& lse_part, const Tensor& y,
                              const Tensor& lse) = 0;
  // delta = sum over C of dy y (D in Dao, 2023, section 3.1): all that gradients of a part need of y. dy, y [T, H, C], y
  // of dy's type or state; delta state [H, T].
  virtual void AttentionDelta(const Tensor& dy, const Tensor& y, const Tensor& delta) = 0;
  // What the keys of one part add to the gradients, given lse of all parts merged and delta: dq [T, H, C], dk, dv
  // [U, G, C] state, +=. dy is of q's type; the rest is as in AttentionPart.
  virtual void AttentionPartGrad(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v,
                                 const Tensor& lse, const Tensor& delta, const Tensor& q_offsets,
                                 const Tensor& k_offsets, const Tensor& q_positions,
                                 const Tensor& k_positions, double scale, const Tensor& dq, const Tensor& dk,
                                 const Tensor& dv) = 0;
  // Writes k, v [T, G, C] into the pages: token t at slot slots[t] = page * page_size + place.
  virtual void StoreKv(const Tensor& k, const Tensor& v, const Tensor& slots, const KvPages& pages) = 0;
  // Queries [query_offsets[s], query_offsets[s+1]) of q [T, H, C] are the last tokens of sequence s, whose
  // context_lengths[s] keys (its own included) are in the pages; causal. page_table [S, max pages] (unused
  // entries are ignored). y [T, H, C].
  virtual void PagedAttention(const Tensor& q, const KvPages& pages, const Tensor& page_table,
                              const Tensor& query_offsets, const Tensor& context_lengths, double scale,
                              const Tensor& y) = 0;

  // ---- loss ----
  // losses[t] = -log softmax(logits[t])[targets[t]]; 0 where targets[t] < 0. logits [T, V] float or
  // state, losses state [T]. dlogits, where defined: grad_scale (softmax - onehot), rows of ignored
  // targets 0; may alias logits.
  virtual void CrossEntropy(const Tensor& logits, const Tensor& targets, double grad_scale,
                            const Tensor& losses, const Tensor& dlogits) = 0;

  // The loss over logits whose columns are split: this rank has classes [first, first + V) as logits [T, V]
  // float or state; targets are of all classes, those elsewhere included. In order, with max, sum,
  // target_logit, lse, losses state [T]:
  //   VocabularyStats            here
  //   global_max = max           over the ranks
  //   VocabularyRescale          sum[t] *= exp(max[t] - global_max[t])
  //   sum, target_logit          added over the ranks
  //   VocabularyLoss             of global_max: the same on every rank
  //   VocabularyGrad             of this rank's columns
  // max[t], sum[t] = sum_i exp(logits[t, i] - max[t]), target_logit[t] = the target's logit, 0 where it is not
  // here. Without a column above -inf: max -inf, sum 0. Ignored targets (< 0): all three 0.
  virtual void VocabularyStats(const Tensor& logits, const Tensor& targets, int64_t first, const Tensor& max,
                               const Tensor& sum, const Tensor& target_logit) = 0;
  virtual void VocabularyRescale(const Tensor& max, const Tensor& global_max, const Tensor& sum) = 0;
  // lse[t] = max[t] + log sum[t], losses[t] = lse[t] - target_logit[t]; both 0 where targets[t] < 0.
  virtual void VocabularyLoss(const Tensor& targets, const Tensor& max, const Tensor& sum,
                              const Tensor& target_logit, const Tensor& lse, const Tensor& losses) = 0;
  // dlogits[t, i] = grad_scale (exp(logits[t, i] - lse[t]) - [first + i is the target]), rows of ignored
  // targets 0; of logits' type; may alias logits.
  virtual void VocabularyGrad(const Tensor& logits, const Tensor& targets, int64_t first, const Tensor& lse,
                              double grad_scale, const Tensor& dlogits) = 0;

  // ---- sampling ----

  // tokens[r]: the next token after logits[r], one number of Philox(seed, kSampling, position, stream) (runtime/random)
  // laid over the weights exp((x - largest) / temperature) of what is kept. Tokens have an order: the larger logit
  // first, the lower index among equals. Each filter keeps a beginning of it: top_k its first k; top_p the fewest that
  // reach top_p of the weight that top_k kept; min_p those at least min_p times as likely as the first. Greedy: the
  // first. kBrokenLogits where the row holds a NaN or +inf, kNothingToDraw where nothing in it is above -inf. Where
  // defined (both or neither): logprobs[r] = log softmax(logits[r])[tokens[r]], ranks[r] = 1 + how many come before it;
  // 0 where there is no token. logits float or state [R, V], logprobs state [R], tokens, ranks kI32 [R].
  virtual void SampleTokens(const Tensor& logits, const SamplingRows& rows, const Tensor& tokens,
                            const Tensor& logprobs, const Tensor& ranks) = 0;

  // ---- mixture of experts ----

  // Rows of [T, E] state tensors. y may alias x; dx may alias dy.
  virtual void Softmax(const Tensor& x, const Tensor& y) = 0;
  virtual void SoftmaxGrad(const Tensor& dy, const Tensor& y, const Tensor& dx) = 0;
  virtual void Sigmoid(const Tensor& x, const Tensor& y) = 0;
  virtual void SigmoidGrad(const Tensor& dy, const Tensor& y, const Tensor& dx) = 0;
  // lse[t] = log sum exp x[t]. state [T].
  virtual void LogSumExp(const Tensor& x, const Tensor& lse) = 0;
  // The K largest of scores[t] + bias (bias [E], may be undefined), best first; equals: the lower index.
  // scores state [T, E], indices [T, K].
  virtual void TopK(const Tensor& scores, const Tensor& bias, const Tensor& indices) = 0;
  // y[t, j] = x[t, indices[t, j]]. x [T, E], y [T, K].
  virtual void GatherColumns(const Tensor& x, const Tensor& indices, const Tensor& y) = 0;
  // dx[t, indices[t, j]] += dy[t, j].
  virtual void GatherColumnsGrad(const Tensor& dy, const Tensor& indices, const Tensor& dx) = 0;
  // y[t] = x[t] / sum(x[t]). [T, K].
  virtual void NormalizeRows(const Tensor& x, const Tensor& y) = 0;
  virtual void NormalizeRowsGrad(const Tensor& dy, const Tensor& x, const Tensor& y, const Tensor& dx) = 0;
  // Stable counting sort of the T K choices by expert. indices [T, K] in [-1, E) (-1: dropped, in no group).
  // offsets [E+1]; order [T K]: order[p] = the choice (t K + j) at sorted place p (places past offsets[E] get
  // -1); places [T, K]: the inverse (-1 for dropped choices).
  virtual void SortByExpert(const Tensor& indices, const Tensor& offsets, const Tensor& order,
                            const Tensor& places) = 0;
  // y[t] = sum_j weights[t, j] x[places[t, j]], negative places skipped. x [M, D], places [T, K],
  // weights state [T, K] or undefined (all one), y [T, D]. With weights undefined also the
  // gradient of GatherRows by token.
  virtual void CombineRows(const Tensor& x, const Tensor& places, const Tensor& weights, const Tensor& y) = 0;
  // dx[places[t, j]] = weights[t, j] dy[t] (rows that no place names are left as they are); dweights[t, j] =
  // dy[t] . x[places[t, j]] (0 where negative). dweights may be undefined.
  virtual void CombineRowsGrad(const Tensor& dy, const Tensor& x, const Tensor& places, const Tensor& weights,
                               const Tensor& dx, const Tensor& dweights) = 0;

  // ---- router losses and capacity
  // By sequence or by token, so that they are the same however a batch is divided over ranks and
  // micro-batches. The sequence-wise balance loss of DeepSeek-V2/V3: losses[s] = E sum_e f[s,e] P[s,e] over
  // tokens [offsets[s], offsets[s+1]), f[s,e] = the share of the sequence's choices that went to e, P[s,e]
  // = the mean of probs[t,e]; 1 where balanced, 0 for an empty sequence. dprobs, where defined, +=
  // grad_scale x its gradient (f is constant). probs, dprobs state [T, E], indices [T, K] in [0, E),
  // offsets [S+1], losses state [S].
  virtual void BalanceLoss(const Tensor& probs, const Tensor& indices, const Tensor& offsets,
                           double grad_scale, const Tensor& losses, const Tensor& dprobs) = 0;
  // BalanceLoss in two steps, for sequences whose tokens lie on several ranks. First what ranks add up, over
  // this rank's tokens [offsets[s], offsets[s+1]) of sequence s: counts[s,e] = choices that went to e,
  // prob_sums[s,e] = sum of probs[t,e]. Both state [S, E].
  virtual void BalanceCounts(const Tensor& probs, const Tensor& indices, const Tensor& offsets,
                             const Tensor& counts, const Tensor& prob_sums) = 0;
  // Then, from the sums over ranks and lengths kI32 [S], the tokens of the whole sequences of K choices each:
  // losses as of BalanceLoss on whole sequences (equal on all ranks) and the gradients of this rank's tokens
  // into dprobs state [T, E], where defined.
  virtual void BalanceLossFromCounts(const Tensor& counts, const Tensor& prob_sums, const Tensor& lengths,
                                     int64_t choices, double grad_scale, const Tensor& offsets,
                                     const Tensor& losses, const Tensor& dprobs) = 0;
  // The router z-loss of ST-MoE (Zoph et al., 2022): losses[t] = logsumexp(logits[t])^2. dlogits, where
  // defined, += grad_scale x its gradient. logits, dlogits state [T, E], losses state [T].
  virtual void RouterZLoss(const Tensor& logits, double grad_scale, const Tensor& losses,
                           const Tensor& dlogits) = 0;
  // Fixed capacity (Lepikhin et al., 2020; a group is a sequence): kept = indices, with -1 for choices past
  // the first ceil(factor x length x K / experts) of their sequence and expert, in order of (token, choice).
  // indices, kept [T, K] (may be the same), offsets [S+1].
  virtual void DropOverCapacity(const Tensor& indices, const Tensor& offsets, int64_t experts, double factor,
                                const Tensor& kept) = 0;

  // ---- optimizer ----
  // master, grad, m, v state tensors of one shape; value, where defined, gets master rounded to its type.
  virtual void AdamW(const Tensor& master, const Tensor& grad, const Tensor& m, const Tensor& v,
                     const Tensor& value, const AdamWOptions& options) = 0;
};

}  // namespace cohort::runtime
