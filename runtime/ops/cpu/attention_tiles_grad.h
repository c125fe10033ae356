// The gradients of causal attention (FlashAttention-2: Dao, 2023, section 3.1): probabilities are made again
// from q, k and the saved log-sum-exp, tile by tile. Tiles are held transposed, keys by queries, so that the
// saved statistics lie along the lanes and P^T and dS^T are ready as first operands of dV = P^T dY and dK =
// dS^T Q; only dQ^T = K^T dS^T is turned at the end. The scale is applied to dQ and dK when they are written.
#pragma once

#include "runtime/ops/cpu/attention_tiles.h"

namespace cohort::runtime::attention {
namespace {

// sum_c a[c] b[c].
template <typename A, typename B>
inline float Dot(const A* a, const B* b, int64_t n) {
  V sum = {};
  int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes) sum += Load(a + c) * Load(b + c);
  float total = HorizontalSum(sum);
  for (; c < n; ++c) total += ToFloat(a[c]) * ToFloat(b[c]);
  return total;
}

template <typename T>
inline void WriteRow(const float* from, int64_t width, float scale, T* to) {
  int64_t c = 0;
  for (; c + kLanes <= width; c += kLanes) Store(to + c, Load(from + c) * scale);
  for (; c < width; ++c) FromFloat(from[c] * scale, to + c);
}

inline void AddRow(const float* from, int64_t width, float scale, float* to) {
  int64_t c = 0;
  for (; c + kLanes <= width; c += kLanes) Store(to + c, Load(to + c) + Load(from + c) * scale);
  for (; c < width; ++c) to[c] += from[c] * scale;
}

// Row of `width` at element `at` of a result.
template <typename T>
inline void PutRow(const BackwardTask& task, const float* from, int64_t width, float scale, void* to,
                   int64_t at) {
  if (task.add) {
    AddRow(from, width, scale, static_cast<float*>(to) + at);
  } else {
    WriteRow(from, width, scale, static_cast<T*>(to) + at);
  }
}

// sum over c of dy y of the row at element `at`.
template <typename T>
inline float Drift(const BackwardTask& task, const T* dy_row, int64_t at) {
  if (task.y_is_float) return Dot(dy_row, static_cast<const float*>(task.y) + at, task.width);
  return Dot(dy_row, static_cast<const T*>(task.y) + at, task.width);
}

template <typename T>
void Delta(const BackwardTask& task, float* delta) {
  for (int64_t i = 0; i < task.tokens; ++i) {
    for (int64_t r = 0; r < task.heads; ++r) {
      const int64_t at = i * task.token_stride + r * task.width;
      delta[r * task.lse_stride + i] = Drift(task, static_cast<const T*>(task.dy) + at, at);
    }
  }
}

// The row side of a chunk of rows, packed for every product it takes part in.
template <class B, typename T>
struct GradRows {
  using E = typename B::Element;
  GradRows(Arena& arena, int64_t capacity, int64_t cp)
      : q_t(arena.Take<E>(capacity * cp)),
        q_pairs(arena.Take<E>(capacity * cp)),
        dy_t(arena.Take<E>(capacity * cp)),
        dy_pairs(arena.Take<E>(capacity * cp)),
        staging(arena.Take<E>(kPad * cp)),
        lse(arena.Take<float>(capacity)),
        drift(arena.Take<float>(capacity)),
        seen(arena.Take<int32_t>(capacity)) {}

  void Pack(const BackwardTask& task, int64_t first_token, int64_t tokens) {
    rows = tokens * task.heads;
    pad = RoundUp(rows, kPad);
    const int64_t cp = RoundUp(task.width, kPad), begin = first_token * task.heads, end = begin + rows;
    const T* from[kPad];
    for (int64_t i = 0; i < pad; i += kPad) {
      QueryRows(task.q, task.token_stride, task.heads, task.width, begin + i, end, from);
      B::Copy(from, kPad, task.width, cp, staging);
      B::PackTransposed(staging, cp, q_t + i * cp);
      B::PackTransposed(staging + 16 * cp, cp, q_t + (i + 16) * cp);
      B::PackPairs(staging, cp, q_pairs + i * 16, pad * 16);
      QueryRows(task.dy, task.token_stride, task.heads, task.width, begin + i, end, from);
      B::Copy(from, kPad, task.width, cp, staging);
      B::PackTransposed(staging, cp, dy_t + i * cp);
      B::PackTransposed(staging + 16 * cp, cp, dy_t + (i + 16) * cp);
      B::PackPairs(staging, cp, dy_pairs + i * 16, pad * 16);
      for (int64_t r = 0; r < kPad; ++r) {
        const bool real = from[r] != nullptr;
        const int64_t token = (begin + i + r) / task.heads, head = (begin + i + r) % task.heads;
        drift[i + r] = !real ? 0
                       : task.delta != nullptr
                           ? task.delta[head * task.lse_stride + token]
                           : Drift<T>(task, from[r], token * task.token_stride + head * task.width);
        lse[i + r] = real ? task.lse[head * task.lse_stride + token] * kLog2E : 0;
        seen[i + r] = real ? static_cast<int32_t>(task.Seen(token)) : 0;
      }
    }
  }

  int64_t rows = 0, pad = 0;
  E *q_t, *q_pairs;    // panels of Q^T [rows/16][cp][16], and of Q [cp/16][pad][16]
  E *dy_t, *dy_pairs;  // of dY alike
  E* staging;
  float *lse, *drift;  // in base 2; sum_j p_j dp_j
  int32_t* seen;       // keys below this; 0 for padding
};

// Scores and dP of 32 keys from `key` on by `columns` rows -> P^T and dS^T as first operands (leading
// dimension ld) and dS^T as panels [columns/16][kGradKeyBlock][16].
template <class B>
inline void GradTile(const float* scores, const float* dp, int64_t ld_in, int64_t columns, int64_t key,
                     float scale_log2, const float* lse, const float* drift, const int32_t* seen,
                     typename B::Element* p, typename B::Element* ds, int64_t ld,
                     typename B::Element* ds_panels) {
  for (int64_t i = 0; i < columns; i += 32) {
    const V lse0 = Load(lse + i), lse1 = Load(lse + i + kLanes);
    const V drift0 = Load(drift + i), drift1 = Load(drift + i + kLanes);
    const Vi seen0 = LoadInts(seen + i), seen1 = LoadInts(seen + i + kLanes);
    for (int64_t j = 0; j < kPad; j += 2) {
      V d[2][2];
      for (int64_t e = 0; e < 2; ++e) {
        const int64_t at = (j + e) * ld_in + i;
        const int32_t k = static_cast<int32_t>(key + j + e);
        const V e0 = Exp2<B::kExpDegree>(Load(scores + at) * scale_log2 - lse0);
        const V e1 = Exp2<B::kExpDegree>(Load(scores + at + kLanes) * scale_log2 - lse1);
        const V p0 = seen0 > k ? e0 : V{}, p1 = seen1 > k ? e1 : V{};
        d[e][0] = p0 * (Load(dp + at) - drift0);
        d[e][1] = p1 * (Load(dp + at + kLanes) - drift1);
        B::Store32(p + (j + e) * ld + i, p0, p1);
        B::Store32(ds + (j + e) * ld + i, d[e][0], d[e][1]);
      }
      typename B::Element* panel = ds_panels + i * kGradKeyBlock + j * 16;
      B::StorePairs(panel, d[0][0], d[1][0]);
      B::StorePairs(panel + kGradKeyBlock * 16, d[0][1], d[1][1]);
    }
  }
}

template <class B, typename T>
void Backward(const BackwardTask& task, void* scratch) {
  using E = typename B::Element;
  const int64_t cp = RoundUp(task.width, kPad), keys_pad = RoundUp(task.keys, kPad);
  const int64_t chunk = Larger(1, kGradUnitRows / task.heads);
  const int64_t capacity = RoundUp(chunk * task.heads, kPad);
  const int64_t ld_dq = capacity + kSkew;
  constexpr int64_t kLd = kGradRowBlock + kSkew, kLdKeys = kGradKeyBlock + kSkew;
  Arena arena(scratch);
  float* dk = arena.Take<float>(keys_pad * cp);
  float* dv = arena.Take<float>(keys_pad * cp);
  GradRows<B, T> rows(arena, capacity, cp);
  float* dq_t = arena.Take<float>(cp * ld_dq);
  E* k = arena.Take<E>(kGradKeyBlock * cp);
  E* v = arena.Take<E>(kGradKeyBlock * cp);
  E* k_t = arena.Take<E>(cp * kLdKeys);
  float* scores = arena.Take<float>(kPad * kLd);
  float* dp = arena.Take<float>(kPad * kLd);
  E* p = arena.Take<E>(kGradKeyBlock * kLd);
  E* ds = arena.Take<E>(kGradKeyBlock * kLd);
  E* ds_panels = arena.Take<E>(kGradKeyBlock * kGradRowBlock);
  const KeyValues kv{task.k, task.v, task.kv_stride, nullptr, 0, 0};
  const float scale_log2 = task.scale * kLog2E;
  const T* from[kPad];
  std::memset(dk, 0, sizeof(float) * keys_pad * cp);
  std::memset(dv, 0, sizeof(float) * keys_pad * cp);

  for (int64_t t0 = 0; t0 < task.tokens; t0 += chunk) {
    const int64_t tokens = Min(chunk, task.tokens - t0), seen_end = task.Seen(t0 + tokens - 1);
    rows.Pack(task, t0, tokens);
    for (int64_t begin = 0; begin < seen_end; begin += kGradKeyBlock) {
      const int64_t end = Min(seen_end, begin + kGradKeyBlock);
      for (int64_t j = begin; j < end; j += kPad) {
        KeyRows(kv, task.k, j, end, from);
        B::Copy(from, kPad, task.width, cp, k + (j - begin) * cp);
        B::CopyTransposed(k + (j - begin) * cp, cp, k_t + (j - begin), kLdKeys);
        KeyRows(kv, task.v, j, end, from);
        B::Copy(from, kPad, task.width, cp, v + (j - begin) * cp);
      }
      const int64_t first_row = Larger(0, FirstThatSees(task, begin) - t0) * task.heads / kPad * kPad;
      for (int64_t row = first_row; row < rows.pad; row += kGradRowBlock) {
        const int64_t count = Min(kGradRowBlock, rows.pad - row);
        const int64_t last_seen = task.Seen(t0 + Min(row + count - 1, rows.rows - 1) / task.heads);
        const int64_t keys = RoundUp(Min(end, last_seen) - begin, kPad);
        for (int64_t j = 0; j < keys; j += kPad) {
          B::Gemm(k + j * cp, cp, rows.q_t + row * cp, cp * 16, scores, kLd, kPad, count, cp, false);
          B::Gemm(v + j * cp, cp, rows.dy_t + row * cp, cp * 16, dp, kLd, kPad, count, cp, false);
          GradTile<B>(scores, dp, kLd, count, begin + j, scale_log2, rows.lse + row, rows.drift + row,
                      rows.seen + row, p + j * kLd, ds + j * kLd, kLd, ds_panels + j * 16);
        }
        B::Gemm(p, kLd, rows.dy_pairs + row * 16, rows.pad * 16, dv + begin * cp, cp, keys, cp, count, true);
        B::Gemm(ds, kLd, rows.q_pairs + row * 16, rows.pad * 16, dk + begin * cp, cp, keys, cp, count, true);
        B::Gemm(k_t, kLdKeys, ds_panels, kGradKeyBlock * 16, dq_t + row, ld_dq, cp, count, keys, begin > 0);
      }
    }
    for (int64_t i = 0; i < rows.rows; i += kLanes) {
      int64_t to[kLanes];
      for (int64_t r = 0; r < kLanes; ++r) {
        const int64_t row = t0 * task.heads + i + r;
        to[r] = row / task.heads * task.token_stride + row % task.heads * task.width;
      }
      for (int64_t c = 0; c < cp; c += kLanes) {
        float block[kLanes * kLanes];
        Transpose16(dq_t + c * ld_dq + i, ld_dq, block);
        for (int64_t r = 0; r < Min(kLanes, rows.rows - i); ++r) {
          PutRow<T>(task, block + r * kLanes, Min(kLanes, task.width - c), task.scale, task.dq, to[r] + c);
        }
      }
    }
  }
  for (int64_t j = 0; j < task.keys; ++j) {
    PutRow<T>(task, dk + j * cp, task.width, task.scale, task.dk, j * task.kv_stride);
    PutRow<T>(task, dv + j * cp, task.width, 1, task.dv, j * task.kv_stride);
  }
}

}  // namespace
}  // namespace cohort::runtime::attention
