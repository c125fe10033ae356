// Skinny products in bf16: dot products with AVX512-BF16 for up to kDotRows rows; for more, AMX tiles with
// the weights as first operand, which need no repacking that way: y^T[16 weight rows][16 rows of x] = w x^T.
#include <immintrin.h>

#include "runtime/ops/cpu/skinny_matmul_rows.h"

namespace cohort::runtime::skinny {
namespace {

using Bits = uint16_t;  // of a bf16

struct BFloat16Dot {
  using W = Bits;
  using X = Bits;
  static constexpr int64_t kStep = 32;
  static V Add(V sum, const Bits* w, const Bits* x) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_si512(w), (__m512bh)_mm512_loadu_si512(x));
  }
};

// Tiles are whole ones only.
bool UsesTiles(const Task& task) {
  return task.m > kDotRows && task.k % 32 == 0 && task.k > 0 && task.n >= 16;
}

// x -> panels [m/16][k/2][16] of pairs.
void Pack(const Task& task) {
  if (!UsesTiles(task)) return PackRows<BFloat16Dot>(task);
  Bits* to = static_cast<Bits*>(task.packed);
  for (int64_t i = 0; i < task.m; i += 16) {
    for (int64_t l = 0; l < task.k; l += 32, to += 512) {
      __m512i r[16];
      for (int64_t j = 0; j < 16; ++j) {
        r[j] = i + j < task.m ? _mm512_loadu_si512(static_cast<const Bits*>(task.x) + (i + j) * task.k + l)
                              : _mm512_setzero_si512();
      }
      attention::Transpose16(r);
      for (int j = 0; j < 16; ++j) _mm512_storeu_si512(to + j * 32, r[j]);
    }
  }
}

// A tile of y^T to the rows of y, columns [from, row + 16).
void Write(const Task& task, const float* tile, int64_t first, int64_t row, int64_t from) {
  alignas(64) float turned[256];
  attention::Transpose16(tile, 16, turned);
  for (int64_t i = first; i < task.m && i < first + 16; ++i) {
    const V values = Load(turned + (i - first) * 16);
    const __mmask16 mask = static_cast<__mmask16>(0xffffu << (from - row));
    const int64_t at = i * task.n + row;
    if (task.float_output) {
      _mm512_mask_storeu_ps(static_cast<float*>(task.y) + at, mask, values);
    } else {
      _mm256_mask_storeu_epi16(static_cast<Bits*>(task.y) + at, mask, (__m256i)_mm512_cvtneps_pbh(values));
    }
  }
}

// 16 rows of weights by one or two panels of x.
template <bool kTwo>
void TileBlock(const Task& task, int64_t row, int64_t from) {
  const Bits* w = static_cast<const Bits*>(task.w) + row * task.k;
  const Bits* x = static_cast<const Bits*>(task.packed);
  const Bits* x2 = x + 16 * task.k;
  // The next 16 rows, in the order of addresses, into the second-level cache.
  const char* ahead = reinterpret_cast<const char*>(w + 16 * task.k);
  _tile_zero(0);
  if (kTwo) _tile_zero(1);
  for (int64_t l = 0; l < task.k; l += 32) {
    for (int i = 0; i < 16; ++i, ahead += 64) __builtin_prefetch(ahead, 0, 2);
    _tile_loadd(4, w + l, task.k * 2);
    _tile_loadd(6, x + l * 16, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (kTwo) {
      _tile_loadd(7, x2 + l * 16, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
  }
  alignas(64) float tiles[512];
  _tile_stored(0, tiles, 64);
  if (kTwo) _tile_stored(1, tiles + 256, 64);
  Write(task, tiles, 0, row, from);
  if (kTwo) Write(task, tiles + 256, 16, row, from);
}

void RowsBF16(const Task& task, int64_t n_begin, int64_t n_end) {
  if (!UsesTiles(task)) return Rows<BFloat16Dot>(task, n_begin, n_end);
  __asm__ volatile("" ::: "memory");  // GCC's tile loads are not declared to read memory
  for (int64_t row = n_begin; row < n_end; row += 16) {
    const int64_t base =
        row + 16 <= n_end ? row : n_end - 16;  // the last rows again rather than a partial tile
    task.m > 16 ? TileBlock<true>(task, base, row) : TileBlock<false>(task, base, row);
  }
}

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

extern const Kernels kAmxBF16 = {Configure, Release, Pack, RowsBF16};

}  // namespace cohort::runtime::skinny
