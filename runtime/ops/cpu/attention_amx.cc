// The attention kernels with bf16 products on AMX tiles (see runtime/CMakeLists.txt for the flags).
#include <immintrin.h>

#include "runtime/ops/cpu/attention_tiles_grad.h"

namespace cohort::runtime::attention {
namespace {

using Bits = uint16_t;  // of a bf16

// GCC's tile loads are not declared to read memory: ordinary stores must not be moved past them.
inline void CompilerBarrier() { __asm__ volatile("" ::: "memory"); }

inline __m512i LoadBits(const Bits* p) { return _mm512_loadu_si512(p); }

// Two rows of 32 -> the pairs of columns 0..15 and 16..31.
inline void Interleave(__m512i even, __m512i odd, __m512i* lo, __m512i* hi) {
  const __m512i order_lo = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39,
                                            7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i order_hi = _mm512_add_epi16(order_lo, _mm512_set1_epi16(16));
  *lo = _mm512_permutex2var_epi16(even, order_lo, odd);
  *hi = _mm512_permutex2var_epi16(even, order_hi, odd);
}

struct AmxBackend {
  using Element = Bits;
  static constexpr int kExpDegree = 3;

  static void Copy(const Bits* const* rows, int64_t count, int64_t width, int64_t cp, Bits* dst) {
    const int64_t rest = width % kPad;
    const __mmask32 tail = rest == 0 ? 0xffffffffu : (1u << rest) - 1;
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t c = 0; c < cp; c += kPad) {
        const __mmask32 mask = rows[i] == nullptr ? 0 : c + kPad <= width ? 0xffffffffu : tail;
        _mm512_storeu_si512(dst + i * cp + c, _mm512_maskz_loadu_epi16(mask, rows[i] + c));
      }
    }
  }
  static void PackTransposed(const Bits* x, int64_t cp, Bits* panel) {
    for (int64_t c = 0; c < cp; c += kPad) {
      __m512i r[16];
      for (int i = 0; i < 16; ++i) r[i] = LoadBits(x + i * cp + c);
      Transpose16(r);
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(panel + c * 16 + i * 32, r[i]);
    }
  }
  static void PackPairs(const Bits* x, int64_t cp, Bits* panels, int64_t stride) {
    for (int64_t c = 0; c < cp; c += kPad) {
      Bits* panel = panels + c / 16 * stride;
      for (int64_t i = 0; i < kPad; i += 2) {
        __m512i lo, hi;
        Interleave(LoadBits(x + i * cp + c), LoadBits(x + (i + 1) * cp + c), &lo, &hi);
        _mm512_storeu_si512(panel + i * 16, lo);
        _mm512_storeu_si512(panel + stride + i * 16, hi);
      }
    }
  }
  static void CopyTransposed(const Bits* x, int64_t cp, Bits* dst, int64_t ld) {
    for (int64_t c = 0; c < cp; c += kPad) {
      __m512i lo[16], hi[16];
      for (int i = 0; i < 16; ++i) {
        Interleave(LoadBits(x + 2 * i * cp + c), LoadBits(x + (2 * i + 1) * cp + c), lo + i, hi + i);
      }
      Transpose16(lo);
      Transpose16(hi);
      for (int i = 0; i < 16; ++i) {
        _mm512_storeu_si512(dst + (c + i) * ld, lo[i]);
        _mm512_storeu_si512(dst + (c + 16 + i) * ld, hi[i]);
      }
    }
  }
  static void Store32(Bits* dst, V lo, V hi) {
    _mm512_storeu_si512(dst, (__m512i)_mm512_cvtne2ps_pbh(hi, lo));
  }
  static void StorePairs(Bits* panel, V even, V odd) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    _mm512_storeu_si512(panel, _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even)));
  }

  // c[32][32] with tiles 0..3, or c[16][32] with tiles 0, 1; a in tiles 4, 5; b in tiles 6, 7.
  template <bool kTwo>
  static void Tile(const Bits* a, int64_t lda, const Bits* b, int64_t stride, float* c, int64_t ldc,
                   int64_t k, bool accumulate) {
    float* c2 = c + 16 * ldc;
    const int64_t c_bytes = ldc * 4, a_bytes = lda * 2;
    if (accumulate) {
      _tile_loadd(0, c, c_bytes);
      _tile_loadd(1, c + 16, c_bytes);
      if (kTwo) {
        _tile_loadd(2, c2, c_bytes);
        _tile_loadd(3, c2 + 16, c_bytes);
      }
    } else {
      _tile_zero(0);
      _tile_zero(1);
      if (kTwo) {
        _tile_zero(2);
        _tile_zero(3);
      }
    }
    for (int64_t l = 0; l < k; l += 32) {
      _tile_loadd(6, b + l * 16, 64);
      _tile_loadd(4, a + l, a_bytes);
      _tile_loadd(7, b + stride + l * 16, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      if (kTwo) {
        _tile_loadd(5, a + 16 * lda + l, a_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(1, c + 16, c_bytes);
    if (kTwo) {
      _tile_stored(2, c2, c_bytes);
      _tile_stored(3, c2 + 16, c_bytes);
    }
  }
  __attribute__((noinline)) static void Gemm(const Bits* a, int64_t lda, const Bits* b, int64_t stride,
                                             float* c, int64_t ldc, int64_t m, int64_t n, int64_t k,
                                             bool accumulate) {
    CompilerBarrier();
    for (int64_t j = 0; j < n; j += 32) {
      const Bits* panel = b + j / 16 * stride;
      for (int64_t i = 0; i < m; i += 32) {
        if (m - i > 16) {
          Tile<true>(a + i * lda, lda, panel, stride, c + i * ldc + j, ldc, k, accumulate);
        } else {
          Tile<false>(a + i * lda, lda, panel, stride, c + i * ldc + j, ldc, k, accumulate);
        }
      }
    }
  }
};

// All eight tiles are 16 rows of 64 bytes.
void Configure() {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  __asm__ volatile("" ::"r"(&config) : "memory");
  _tile_loadconfig(&config);
}
void Release() { _tile_release(); }

}  // namespace

extern const Kernels kAmxBF16 = {Configure,    Release,       Forward<AmxBackend, Bits>,
                                 Finish<Bits>, Finish<float>, Backward<AmxBackend, Bits>,
                                 Delta<Bits>};

}  // namespace cohort::runtime::attention
