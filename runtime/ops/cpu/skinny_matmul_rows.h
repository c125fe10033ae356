// Skinny products as dot products along rows of weights. Each row of weights is read from memory once, front
// to back, while rows further on are prefetched in the order of addresses: DRAM and the hardware's
// prefetchers like one linear stream better than several (measured: by 10 to 20 %).
//
// D, one dot product's arithmetic: W the element of weights, X of packed x, kStep elements a step,
// Add(sum, w, x) of one step.
#pragma once

#include <string.h>

#include "runtime/ops/cpu/isa_vector.h"
#include "runtime/ops/cpu/skinny_matmul_kernels.h"

namespace cohort::runtime::skinny {
namespace {

using attention::FromFloat;
using attention::HorizontalSum;
using attention::kLanes;
using attention::Load;
using attention::Splat;
using attention::Store;
using attention::ToFloat;
using attention::V;

template <typename T>
struct FloatDot {
  using W = T;
  using X = float;
  static constexpr int64_t kStep = kLanes;
  static V Add(V sum, const T* w, const float* x) { return sum + Load(w) * Load(x); }
};

constexpr int64_t RoundUp(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

inline void NoState() {}

// x -> [m][k rounded up to 32] of X, zero-padded.
template <class D>
void PackRows(const Task& task) {
  const int64_t ld = RoundUp(task.k, 32);
  const typename D::W* x = static_cast<const typename D::W*>(task.x);
  typename D::X* to = static_cast<typename D::X*>(task.packed);
  for (int64_t i = 0; i < task.m; ++i, x += task.k, to += ld) {
    for (int64_t l = 0; l < task.k; ++l) {
      if constexpr (sizeof(typename D::X) == sizeof(typename D::W)) {
        to[l] = x[l];
      } else {
        to[l] = ToFloat(x[l]);
      }
    }
    memset(static_cast<void*>(to + task.k), 0, (ld - task.k) * sizeof(*to));
  }
}

// Dot products of kRows rows of w with kCount rows of x. With `ahead`, touches as many bytes from there on.
template <class D, int kRows, int kCount>
inline void Dots(const typename D::W* w, int64_t k, const typename D::X* x, int64_t ld, const char* ahead,
                 float (&out)[kRows][kDotRows]) {
  V sum[kRows][kCount] = {};
  int64_t l = 0;
  for (; l + D::kStep <= k; l += D::kStep) {
    for (int r = 0; r < kRows; ++r) {
      if (ahead != nullptr) {
        __builtin_prefetch(ahead, 0, 2);
        ahead += D::kStep * sizeof(typename D::W);
      }
      for (int i = 0; i < kCount; ++i) sum[r][i] = D::Add(sum[r][i], w + r * k + l, x + i * ld + l);
    }
  }
  if (l < k) {
    for (int r = 0; r < kRows; ++r) {
      typename D::W rest[D::kStep] = {};
      memcpy(rest, w + r * k + l, (k - l) * sizeof(*w));
      for (int i = 0; i < kCount; ++i) sum[r][i] = D::Add(sum[r][i], rest, x + i * ld + l);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < kCount; ++i) out[r][i] = HorizontalSum(sum[r][i]);
  }
}

// kRows rows of w with all rows of x, a few at a time; w comes from memory for the
// first, then from the cache.
template <class D, int kRows>
inline void Block(const Task& task, int64_t row) {
  using W = typename D::W;
  const int64_t ld = RoundUp(task.k, 32);
  const W* w = static_cast<const W*>(task.w) + row * task.k;
  const typename D::X* x = static_cast<const typename D::X*>(task.packed);
  constexpr int64_t kLeastAhead = 4096;
  const int64_t bytes = kRows * task.k * static_cast<int64_t>(sizeof(W));
  const char* ahead = reinterpret_cast<const char*>(w) + (bytes > kLeastAhead ? bytes : kLeastAhead);
  for (int64_t i = 0; i < task.m; i += kDotRows, x += kDotRows * ld, ahead = nullptr) {
    const int64_t count = task.m - i < kDotRows ? task.m - i : kDotRows;
    float out[kRows][kDotRows];
    switch (count) {
      case 1:
        Dots<D, kRows, 1>(w, task.k, x, ld, ahead, out);
        break;
      case 2:
        Dots<D, kRows, 2>(w, task.k, x, ld, ahead, out);
        break;
      case 3:
        Dots<D, kRows, 3>(w, task.k, x, ld, ahead, out);
        break;
      default:
        Dots<D, kRows, 4>(w, task.k, x, ld, ahead, out);
    }
    for (int64_t j = 0; j < count; ++j) {
      for (int r = 0; r < kRows; ++r) {
        const int64_t at = (i + j) * task.n + row + r;
        if (task.float_output) {
          static_cast<float*>(task.y)[at] = out[r][j];
        } else {
          FromFloat(out[r][j], static_cast<W*>(task.y) + at);
        }
      }
    }
  }
}

template <class D>
void Rows(const Task& task, int64_t n_begin, int64_t n_end) {
  int64_t row = n_begin;
  // More rows of x: four rows of weights a block, which share the loads of x.
  if (task.m > kDotRows) {
    for (; row + 4 <= n_end; row += 4) Block<D, 4>(task, row);
  }
  for (; row < n_end; ++row) Block<D, 1>(task, row);
}

template <typename T>
constexpr Kernels FloatKernels() {
  return {NoState, NoState, PackRows<FloatDot<T>>, Rows<FloatDot<T>>};
}

}  // namespace
}  // namespace cohort::runtime::skinny
