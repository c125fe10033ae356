// Causal attention block by block (FlashAttention: Dao et al., 2022): keys are packed a block at a time,
// scored against blocks of rows, and the running maximum, sum and output of each row are corrected as blocks
// pass. Only a kRowBlock x kKeyBlock tile of scores ever exists.
//
// A backend B gives the packed element type and the products of one instruction set:
//   Element                         what packed operands are made of
//   kExpDegree                      of the exponential's polynomial
//   Copy(rows, count, width, dst)   32 rows of T -> dst [32][cp] of Element, zero-padded; null rows are zero
//   PackTransposed(x, cp, panel)    16 rows [16][cp] -> one panel of x^T
//   PackPairs(x, cp, panels, stride)          32 rows [32][cp] -> 32 k-rows of cp/16 panels
//   CopyTransposed(x, cp, dst, ld)  32 rows [32][cp] -> dst [cp][32], leading dimension ld
//   Store32(dst, lo, hi)            32 floats -> Element
//   StorePairs(panel, even, odd)    16 columns of two consecutive k-rows -> a panel
//   Gemm(a, lda, b, panel_stride, c, ldc, m, n, k, accumulate)   c[m][n] (+)= a[m][k] b[k][n]; n, k multiples
//   of 32;
//                                   rows up to the next multiple of 16 may be read and written
// A panel is 16 columns of the second operand: [k][16], in bf16 with rows interleaved in pairs (VNNI).
#pragma once

#include <math.h>

#include "runtime/ops/cpu/attention_kernels.h"
#include "runtime/ops/cpu/isa_vector.h"

namespace cohort::runtime::attention {
namespace {

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t Larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Cuts a scratch buffer into 64-byte aligned arrays.
class Arena {
 public:
  explicit Arena(void* scratch) : next_(static_cast<char*>(scratch)) {}
  template <typename E>
  E* Take(int64_t count) {
    E* result = reinterpret_cast<E*>(next_);
    next_ += RoundUp(count * static_cast<int64_t>(sizeof(E)), 64);
    return result;
  }

 private:
  char* next_;
};

// The addresses of 32 query rows from `row` on; null past the end.
template <typename T>
inline void QueryRows(const void* base, int64_t token_stride, int64_t heads, int64_t width, int64_t row,
                      int64_t rows, const T** out) {
  int64_t token = row / heads, head = row % heads;
  for (int64_t i = 0; i < kPad; ++i) {
    out[i] = row + i < rows ? static_cast<const T*>(base) + token * token_stride + head * width : nullptr;
    if (++head == heads) head = 0, ++token;
  }
}

// The addresses of 32 keys (or values) from `key` on.
template <typename T>
inline void KeyRows(const KeyValues& kv, const void* base, int64_t key, int64_t end, const T** out) {
  const T* rows = static_cast<const T*>(base);
  for (int64_t i = 0; i < kPad; ++i) {
    const int64_t j = key + i;
    if (j >= end) {
      out[i] = nullptr;
    } else if (kv.page_table == nullptr) {
      out[i] = rows + j * kv.stride;
    } else {
      out[i] = rows + kv.page_table[j / kv.page_size] * kv.page_stride + j % kv.page_size * kv.stride;
    }
  }
}

// The first token that sees key `key`; task.tokens where none does.
template <typename Task>
inline int64_t FirstThatSees(const Task& task, int64_t key) {
  int64_t low = 0, high = task.tokens;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (task.Seen(middle) > key) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// One row of scores, of which the first `seen` count -> probabilities against the running maximum; corrects
// the row's output. `columns` is a multiple of 32 and is filled.
template <class B>
inline void SoftmaxRow(float* s, typename B::Element* p, int64_t columns, int64_t seen, float scale_log2,
                       float* top, float* sum, float* o, int64_t cp) {
  if (seen <= 0) {
    for (int64_t j = 0; j < columns; j += 32) B::Store32(p + j, V{}, V{});
    return;
  }
  seen = Min(seen, columns);
  const int64_t used = RoundUp(seen, 32);
  for (int64_t j = seen / kLanes * kLanes; j < used; j += kLanes) {
    const Vi hidden = Iota() + static_cast<int32_t>(j) >= static_cast<int32_t>(seen);
    Store(s + j, hidden ? Splat(-INFINITY) : Load(s + j));
  }
  V top0 = Load(s), top1 = Load(s + kLanes);
  for (int64_t j = 32; j < used; j += 32) {
    top0 = Max(top0, Load(s + j));
    top1 = Max(top1, Load(s + j + kLanes));
  }
  const float before = *top;
  const float block_top = HorizontalMax(Max(top0, top1)) * scale_log2;
  const float now = before > block_top ? before : block_top;
  const V shift = Splat(-now), factor = Splat(scale_log2);
  V sum0 = {}, sum1 = {};
  for (int64_t j = 0; j < used; j += 32) {
    const V p0 = Exp2<B::kExpDegree>(Load(s + j) * factor + shift);
    const V p1 = Exp2<B::kExpDegree>(Load(s + j + kLanes) * factor + shift);
    sum0 += p0;
    sum1 += p1;
    B::Store32(p + j, p0, p1);
  }
  for (int64_t j = used; j < columns; j += 32) B::Store32(p + j, V{}, V{});
  float correction = 1;
  if (now != before && before != -INFINITY) {
    correction = exp2f(before - now);
    for (int64_t c = 0; c < cp; c += kLanes) Store(o + c, Load(o + c) * correction);
  }
  *top = now;
  *sum = *sum * correction + HorizontalSum(sum0 + sum1);
}

template <class B, typename T>
void Forward(const ForwardTask& task, float* state, void* scratch) {
  using E = typename B::Element;
  const int64_t rows = task.rows(), rows_pad = RoundUp(rows, kPad), cp = RoundUp(task.width, kPad);
  constexpr int64_t kLd = kKeyBlock + kSkew;
  Arena arena(scratch);
  E* q = arena.Take<E>(rows_pad * cp);
  E* staging = arena.Take<E>(kPad * cp);
  E* keys = arena.Take<E>(kKeyBlock * cp);    // panels of K^T: [keys/16][cp][16]
  E* values = arena.Take<E>(kKeyBlock * cp);  // panels of V: [cp/16][kKeyBlock][16]
  float* scores = arena.Take<float>(kRowBlock * kLd);
  E* probabilities = arena.Take<E>(kRowBlock * kLd);
  float *o = state, *top = o + rows_pad * cp, *sum = top + rows_pad;
  const float scale_log2 = task.scale * kLog2E;
  const T* from[kPad];

  for (int64_t i = 0; i < rows_pad; i += kPad) {
    QueryRows(task.q, task.token_stride, task.heads, task.width, i, rows, from);
    B::Copy(from, kPad, task.width, cp, q + i * cp);
  }
  for (int64_t i = 0; i < rows_pad; ++i) top[i] = -INFINITY, sum[i] = 0;
  for (int64_t begin = task.key_begin; begin < task.key_end; begin += kKeyBlock) {
    const int64_t end = Min(task.key_end, begin + kKeyBlock);
    for (int64_t j = begin; j < end; j += kPad) {
      KeyRows(task.kv, task.kv.keys, j, end, from);
      B::Copy(from, kPad, task.width, cp, staging);
      B::PackTransposed(staging, cp, keys + (j - begin) * cp);
      B::PackTransposed(staging + 16 * cp, cp, keys + (j - begin + 16) * cp);
      KeyRows(task.kv, task.kv.values, j, end, from);
      B::Copy(from, kPad, task.width, cp, staging);
      B::PackPairs(staging, cp, values + (j - begin) * 16, kKeyBlock * 16);
    }
    // The first token that sees any of these keys; the rows before are done.
    const int64_t first_row = FirstThatSees(task, begin) * task.heads;
    for (int64_t row = first_row / kRowBlock * kRowBlock; row < rows; row += kRowBlock) {
      const int64_t count = Min(kRowBlock, rows - row);
      const int64_t last_seen = task.Seen((row + count - 1) / task.heads);
      const int64_t columns = RoundUp(Min(end, last_seen) - begin, kPad);
      B::Gemm(q + row * cp, cp, keys, cp * 16, scores, kLd, count, columns, cp, false);
      int64_t token = row / task.heads, head = row % task.heads;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t seen = Min(end, task.Seen(token)) - begin;
        SoftmaxRow<B>(scores + i * kLd, probabilities + i * kLd, columns, seen, scale_log2, top + row + i,
                      sum + row + i, o + (row + i) * cp, cp);
        if (++head == task.heads) head = 0, ++token;
      }
      B::Gemm(probabilities, kLd, values, kKeyBlock * 16, o + row * cp, cp, count, cp, columns,
              begin != task.key_begin);
    }
  }
}

template <typename T>
void Finish(const ForwardTask& task, const float* const* states, int count) {
  const int64_t rows = task.rows(), rows_pad = RoundUp(rows, kPad), cp = RoundUp(task.width, kPad);
  for (int64_t row = 0; row < rows; ++row) {
    const float* tops = states[0] + rows_pad * cp;
    const float* sums = tops + rows_pad;
    float top = -INFINITY, sum = 0;
    for (int i = 0; i < count; ++i) {
      const float t = (tops - states[0] + states[i])[row];
      top = t > top ? t : top;
    }
    T* y = static_cast<T*>(task.y) + row / task.heads * task.token_stride + row % task.heads * task.width;
    float weights[kMaxParts];
    for (int i = 0; i < count; ++i) {
      const float t = (tops - states[0] + states[i])[row];
      weights[i] = t == -INFINITY ? 0 : exp2f(t - top);
      sum += weights[i] * (sums - states[0] + states[i])[row];
    }
    for (int64_t c = 0; c < task.width; c += kLanes) {
      V o = {};
      for (int i = 0; i < count; ++i) {
        if (weights[i] > 0) o += Load(states[i] + row * cp + c) * weights[i];
      }
      o *= 1 / sum;
      if (c + kLanes <= task.width) {
        Store(y + c, o);
      } else {
        for (int64_t j = c; j < task.width; ++j) FromFloat(o[j - c], y + j);
      }
    }
    if (task.lse != nullptr) {
      task.lse[row % task.heads * task.lse_stride + row / task.heads] = (top + log2f(sum)) * kLn2;
    }
  }
}

}  // namespace
}  // namespace cohort::runtime::attention
