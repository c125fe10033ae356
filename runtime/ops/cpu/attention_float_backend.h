// The backend of attention_tiles.h for f32 products: bf16 is converted when it
// is packed. Plain panels [k][16].
#pragma once

#include "runtime/ops/cpu/attention_tiles_grad.h"

namespace cohort::runtime::attention {
namespace {

struct FloatBackend {
  using Element = float;
  static constexpr int kExpDegree = 5;
  // Rows and panels of c held in registers.
#if defined(__AVX512F__)
  static constexpr int kTileRows = 8, kTilePanels = 2;
#else
  static constexpr int kTileRows = 2, kTilePanels = 1;
#endif

  template <typename T>
  static void Copy(const T* const* rows, int64_t count, int64_t width, int64_t cp, float* dst) {
    for (int64_t i = 0; i < count; ++i) {
      float* to = dst + i * cp;
      int64_t c = 0;
      if (rows[i] != nullptr) {
        for (; c + kLanes <= width; c += kLanes) Store(to + c, Load(rows[i] + c));
        for (; c < width; ++c) to[c] = ToFloat(rows[i][c]);
      }
      for (; c < cp; ++c) to[c] = 0;
    }
  }
  static void PackTransposed(const float* x, int64_t cp, float* panel) {
    for (int64_t c = 0; c < cp; c += kLanes) Transpose16(x + c, cp, panel + c * kLanes);
  }
  static void PackPairs(const float* x, int64_t cp, float* panels, int64_t stride) {
    for (int64_t i = 0; i < kPad; ++i) {
      for (int64_t c = 0; c < cp; c += kLanes)
        Store(panels + c / kLanes * stride + i * 16, Load(x + i * cp + c));
    }
  }
  static void CopyTransposed(const float* x, int64_t cp, float* dst, int64_t ld) {
    float block[kLanes * kLanes];
    for (int64_t i = 0; i < kPad; i += kLanes) {
      for (int64_t c = 0; c < cp; c += kLanes) {
        Transpose16(x + i * cp + c, cp, block);
        for (int r = 0; r < kLanes; ++r) Store(dst + (c + r) * ld + i, Load(block + r * kLanes));
      }
    }
  }
  static void Store32(float* dst, V lo, V hi) {
    Store(dst, lo);
    Store(dst + kLanes, hi);
  }
  static void StorePairs(float* panel, V even, V odd) { Store32(panel, even, odd); }

  template <int kRows>
  static void Tile(const float* a, int64_t lda, const float* b, int64_t stride, float* c, int64_t ldc,
                   int64_t k, bool accumulate) {
    V sum[kRows][kTilePanels];
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < kTilePanels; ++j) sum[i][j] = accumulate ? Load(c + i * ldc + j * kLanes) : V{};
    }
    for (int64_t l = 0; l < k; ++l) {
      V row[kTilePanels];
      for (int j = 0; j < kTilePanels; ++j) row[j] = Load(b + j * stride + l * kLanes);
      for (int i = 0; i < kRows; ++i) {
        const V x = Splat(a[i * lda + l]);
        for (int j = 0; j < kTilePanels; ++j) sum[i][j] += x * row[j];
      }
    }
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < kTilePanels; ++j) Store(c + i * ldc + j * kLanes, sum[i][j]);
    }
  }
  __attribute__((noipa)) static void Gemm(const float* a, int64_t lda, const float* b, int64_t stride,
                                          float* c, int64_t ldc, int64_t m, int64_t n, int64_t k,
                                          bool accumulate) {
    for (int64_t j = 0; j < n; j += kTilePanels * kLanes) {
      const float* panel = b + j / kLanes * stride;
      int64_t i = 0;
      for (; i + kTileRows <= m; i += kTileRows) {
        Tile<kTileRows>(a + i * lda, lda, panel, stride, c + i * ldc + j, ldc, k, accumulate);
      }
      for (; i < m; ++i) Tile<1>(a + i * lda, lda, panel, stride, c + i * ldc + j, ldc, k, accumulate);
    }
  }
};

inline void NoState() {}

template <typename T>
constexpr Kernels FloatKernels() {
  return {NoState, NoState, Forward<FloatBackend, T>, Finish<T>, Finish<float>, Backward<FloatBackend, T>,
          Delta<T>};
}

}  // namespace
}  // namespace cohort::runtime::attention
