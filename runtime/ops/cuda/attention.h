// Attention kernels: attention_forward.cu and attention_backward.cu (bf16 on tensor cores), attention_plain.cu (f32, and
// widths that the former do not take), attention_rows.cu, paged_decode.cu.
#pragma once

#include "runtime/ops/cuda/element.h"
#include "runtime/ops/cuda/launch.h"

namespace cohort::runtime::COHORT_CUDA {

// Which keys the queries of a sequence see: always the first so many, never fewer than the query before.
struct Sight {
  const int32_t* seen;  // of each query, or null:
  int64_t before;       // query i sees before + i + 1
  __host__ __device__ int32_t operator()(int64_t i) const {
    return seen != nullptr ? seen[i] : static_cast<int32_t>(before + i + 1);
  }
};

// One call. Offsets, tables and lengths are on the device: the host knows sizes of tensors only.
struct AttentionCall {
  int64_t tokens = 0, keys = 0, heads = 0, groups = 0, width = 0, sequences = 0;
  float scale = 1;
  const int32_t* q_offsets = nullptr;  // [sequences + 1]
  const int32_t* k_offsets = nullptr;  // [sequences + 1], where keys are not in pages
  const int32_t* seen = nullptr;       // [tokens]; null: whole sequences, causal
  // Keys in pages [P, groups, page_size, width].
  const int32_t* page_table = nullptr;  // [sequences, table_width]
  const int32_t* lengths = nullptr;     // [sequences]
  int64_t table_width = 0, page_size = 1, pages = 0;
  // Sequences with more queries than this are left to attention_forward.cu, others to paged_decode.cu.
  int64_t decode_queries = 0;

  __host__ __device__ int64_t heads_of_group() const { return heads / groups; }
};

// One sequence of a call.
struct AttentionSequence {
  int64_t query, queries;  // its first row of q, and how many
  int64_t key, keys;       // the same of k; pages: only how many
  Sight sight;
};
#if defined(COHORT_DEVICE_CODE)
__device__ __forceinline__ AttentionSequence SequenceOf(const AttentionCall& call, int64_t s) {
  AttentionSequence result;
  result.query = call.q_offsets[s];
  result.queries = call.q_offsets[s + 1] - result.query;
  result.key = 0;
  if (call.page_table != nullptr) {
    result.keys = call.lengths[s];
    CheckOnDevice(result.queries == 0 ||
                  (result.keys >= result.queries && result.keys <= call.table_width * call.page_size));
    result.sight = {nullptr, result.keys - result.queries};
  } else {
    result.key = call.k_offsets[s];
    result.keys = call.k_offsets[s + 1] - result.key;
    result.sight = {call.seen != nullptr ? call.seen + result.query : nullptr, 0};
  }
  return result;
}

// The element at which key j of sequence s begins in the pages, of group g; and wherever it is.
__device__ __forceinline__ int64_t KeyInPages(const AttentionCall& call, int64_t s, int64_t j, int64_t g) {
  // Lengths are i32, so j and pages that hold more than one key are too; a division of 64 bits costs several of 32.
  const auto key = static_cast<uint32_t>(j), size = static_cast<uint32_t>(call.page_size), at = key / size;
  const int64_t page = call.page_table[s * call.table_width + at];
  CheckOnDevice(page >= 0 && page < call.pages);
  return ((page * call.groups + g) * call.page_size + (key - at * size)) * call.width;
}
__device__ __forceinline__ int64_t KeyAt(const AttentionCall& call, const AttentionSequence& sequence,
                                         int64_t s, int64_t j, int64_t g) {
  if (call.page_table != nullptr) return KeyInPages(call, s, j, g);
  return ((sequence.key + j) * call.groups + g) * call.width;
}

// The first query of a sequence that sees key j: what queries see does not descend.
__device__ __forceinline__ int64_t FirstThatSees(const AttentionSequence& sequence, int64_t j) {
  int64_t low = 0, high = sequence.queries;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (sequence.sight(middle) > j) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

#endif  // COHORT_DEVICE_CODE

// Outputs of the gradients: of the inputs' type and overwritten, or f32 and added to.
struct AttentionGrads {
  void *dq, *dk, *dv;
  bool add;
};

// ---- tensor cores; widths that are multiples of 8 up to kWidestForward or kWidestBackward, 16-byte aligned ----
inline constexpr int64_t kWidestForward = 256, kWidestBackward = 128;
bool ForwardTakes(const Queue& queue, const AttentionCall& call, const void* q, const void* k, const void* v,
                  const void* y);
// lse may be null.
void AttentionForward(const Queue& queue, const AttentionCall& call, const Bf16* q, const Bf16* k,
                      const Bf16* v, void* y, bool y_is_float, float* lse);
// The same on Hopper, for what ForwardTakes, or BackwardTakes, takes.
bool HopperTakes(const Queue& queue, const AttentionCall& call);
void AttentionHopper(const Queue& queue, const AttentionCall& call, const Bf16* q, const Bf16* k,
                     const Bf16* v, void* y, bool y_is_float, float* lse);
void AttentionHopperBackward(const Queue& queue, const AttentionCall& call, const Bf16* dy, const Bf16* q,
                             const Bf16* k, const Bf16* v, const float* lse, const float* delta,
                             const AttentionGrads& grads);
bool BackwardTakes(const Queue& queue, const AttentionCall& call, const void* dy, const void* q,
                   const void* k, const void* v, const AttentionGrads& grads);
void AttentionBackward(const Queue& queue, const AttentionCall& call, const Bf16* dy, const Bf16* q,
                       const Bf16* k, const Bf16* v, const float* lse, const float* delta,
                       const AttentionGrads& grads);

// ---- any width whose tiles fit into shared memory; T float or Bf16 ----
size_t PlainForwardShared(int64_t width);
size_t PlainBackwardShared(int64_t width);
template <typename T>
void PlainForward(const Queue& queue, const AttentionCall& call, const T* q, const T* k, const T* v, void* y,
                  bool y_is_float, float* lse);
template <typename T>
void PlainBackward(const Queue& queue, const AttentionCall& call, const T* dy, const T* q, const T* k,
                   const T* v, const float* lse, const float* delta, const AttentionGrads& grads);

// ---- rows ----
// seen[t] = the number of keys of t's sequence at positions <= q_positions[t].
void CountSeen(const Queue& queue, const AttentionCall& call, const int32_t* q_positions,
               const int32_t* k_positions, int32_t* seen);
// delta[h, t] = sum of dy y.
template <typename T>
void DeltaRows(const Queue& queue, const T* dy, const void* y, bool y_is_float, float* delta, int64_t tokens,
               int64_t heads, int64_t width);
template <typename P, typename T>
void MergeRows(const Queue& queue, const P* y_part, const float* lse_part, T* y, float* lse, int64_t tokens,
               int64_t heads, int64_t width);

// ---- decoding: few queries a sequence, keys in pages, split over DecodeSplits blocks ----
bool DecodeTakes(const Queue& queue, const AttentionCall& call, const void* q, const void* keys,
                 const void* values, const void* y);
int64_t DecodeSplits(const Queue& queue, const AttentionCall& call);
// part_y [splits, tokens, heads, width], part_lse [splits, tokens, heads]: null where there is one split.
void PagedDecode(const Queue& queue, const AttentionCall& call, int64_t splits, const Bf16* q,
                 const Bf16* keys, const Bf16* values, Bf16* y, float* part_y, float* part_lse);

}  // namespace cohort::runtime::COHORT_CUDA
