// Products of bf16 matrices on AMX tiles, with f32 sums.
//
// The blocking is that of Goto & van de Geijn (2008): both operands are packed once, a strip of B (32 columns
// and 512 of k: 32 KiB) stays in the first-level cache while the rows of a block of A stream past it from the
// second level, and 2 x 2 tiles of C sit in registers, which needs one tile load for each tile product.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

#include "comm/data_type.h"
#include "runtime/device/device.h"
#include "runtime/ops/cpu/amx_matmul.h"

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own AVX-512 headers
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,amx-tile,amx-bf16")
#include "runtime/ops/cpu/amx_pack.h"

namespace cohort::runtime {
namespace amx_matmul {
namespace {

constexpr int64_t kBlockRows = 512;     // of C: with 512 of k, half a MiB of A in the second-level cache
constexpr int64_t kBlockColumns = 512;  // of C
constexpr int64_t kBlockDepth = 512;    // of k: a strip of B fills two thirds of the first-level cache

int64_t RoundUp(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// c [32, 32] = or += strips a and b over `tiles` tiles of depth. The compiler does not see what tile
// instructions read, so nothing may move across this function: it is not inlined, and ends with a barrier.
__attribute__((noinline)) void MultiplyStrips(const BFloat16* a, const BFloat16* b, int64_t tiles, float* c,
                                              int64_t ldc, bool add, const BFloat16* next_b,
                                              int64_t prefetch_lines) {
  __asm__ volatile("" ::: "memory");
  const int64_t stride = ldc * static_cast<int64_t>(sizeof(float));
  float* lower = c + kTile * ldc;
  if (add) {
    _tile_loadd(0, c, stride);
    _tile_loadd(1, c + kTile, stride);
    _tile_loadd(2, lower, stride);
    _tile_loadd(3, lower + kTile, stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const char* prefetch = reinterpret_cast<const char*>(next_b);
  for (int64_t k = 0; k < tiles; ++k) {
    _tile_loadd(6, b, 64);
    _tile_loadd(4, a, 64);
    _tile_loadd(7, b + kTileSize, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, a + kTileSize, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    a += 2 * kTileSize;
    b += 2 * kTileSize;
    for (int64_t line = 0; line < prefetch_lines; ++line, prefetch += 64) _mm_prefetch(prefetch, _MM_HINT_T1);
  }
  _tile_stored(0, c, stride);
  _tile_stored(1, c + kTile, stride);
  _tile_stored(2, lower, stride);
  _tile_stored(3, lower + kTile, stride);
  __asm__ volatile("" ::: "memory");
}

// Finished sums [32, 32] into rows x columns of c.
void StoreSums(const float* sums, const AmxProduct& p, int64_t i, int64_t j) {
  const int64_t rows = std::min(kStrip, p.m - i), columns = std::min(kStrip, p.n - j);
  for (int64_t half = 0; half < columns; half += kTile) {
    const auto mask = static_cast<__mmask16>(FirstN(std::min(columns - half, kTile)));
    for (int64_t r = 0; r < rows; ++r) {
      __m512 value = _mm512_load_ps(sums + r * kStrip + half);
      const int64_t place = (i + r) * p.ldc + j + half;
      if (p.output == DataType::kF32) {
        float* c = static_cast<float*>(p.c) + place;
        if (p.accumulate) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, c));
        _mm512_mask_storeu_ps(c, mask, value);
      } else {
        BFloat16* c = static_cast<BFloat16*>(p.c) + place;
        if (p.accumulate) {
          const __m512i old = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, c));
          value = _mm512_add_ps(value, _mm512_castsi512_ps(_mm512_slli_epi32(old, 16)));
        }
        _mm256_mask_storeu_epi16(c, mask, (__m256i)_mm512_cvtneps_pbh(value));
      }
    }
  }
}

// Rows [i0, i1) and columns [j0, j1) of C. a and b: the packed strips from i0 and j0 on. sums: scratch, 32 x
// 32 for each pair of strips.
void MultiplyBlock(const AmxProduct& p, const BFloat16* a, const BFloat16* b, int64_t i0, int64_t i1,
                   int64_t j0, int64_t j1, float* sums) {
  const int64_t depth_tiles = RoundUp(p.k, kTileDepth) / kTileDepth;
  const int64_t strip_size = depth_tiles * 2 * kTileSize;
  // Parts of equal depth.
  const int64_t parts = (p.k + kBlockDepth - 1) / kBlockDepth;
  const int64_t part_tiles = (depth_tiles + parts - 1) / parts;
  const int64_t row_strips = (i1 - i0 + kStrip - 1) / kStrip;
  for (int64_t first = 0; first < depth_tiles; first += part_tiles) {
    const int64_t tiles = std::min(part_tiles, depth_tiles - first);
    const bool last = first + tiles == depth_tiles;
    for (int64_t j = j0; j < j1; j += kStrip) {
      const BFloat16* b_strip = b + (j - j0) / kStrip * strip_size + first * 2 * kTileSize;
      // While this strip is in use, the next one is brought nearer: a share of its lines at each step.
      const int64_t lines = tiles * 2 * kTileSize * 2 / 64;
      const int64_t lines_per_step =
          j + kStrip < j1 ? (lines + row_strips * tiles - 1) / (row_strips * tiles) : 0;
      const BFloat16* next = b_strip + strip_size;
      for (int64_t i = i0; i < i1; i += kStrip, next += lines_per_step * tiles * 32) {
        const BFloat16* a_strip = a + (i - i0) / kStrip * strip_size + first * 2 * kTileSize;
        const bool inside = i + kStrip <= p.m && j + kStrip <= p.n;
        if (p.output == DataType::kF32 && inside) {
          float* c = static_cast<float*>(p.c) + i * p.ldc + j;
          MultiplyStrips(a_strip, b_strip, tiles, c, p.ldc, p.accumulate || first > 0, next, lines_per_step);
          continue;
        }
        float* block = sums + ((j - j0) / kStrip * row_strips + (i - i0) / kStrip) * kStrip * kStrip;
        MultiplyStrips(a_strip, b_strip, tiles, block, kStrip, first > 0, next, lines_per_step);
        if (last) StoreSums(block, p, i, j);
      }
    }
  }
}

}  // namespace
}  // namespace amx_matmul

void MultiplyOnTiles(const AmxProduct& p) {
  using namespace amx_matmul;
  const TileConfig config;
  _tile_loadconfig(&config);
  const Operand a{p.a, p.lda, !p.transpose_a}, b{p.b, p.ldb, p.transpose_b};
  const int64_t depth = RoundUp(p.k, kTileDepth);
  const int64_t m = RoundUp(p.m, kStrip), n = RoundUp(p.n, kStrip);
  // The smaller operand is packed whole, the other one a block at a time.
  const bool whole_a = m <= n;
  const auto scratch = [](int64_t elements, size_t size) { return CpuDevice().Allocate(elements * size); };
  const auto pack_a = scratch((whole_a ? m : std::min(m, kBlockRows)) * depth, sizeof(BFloat16));
  const auto pack_b = scratch((whole_a ? std::min(n, kBlockColumns) : n) * depth, sizeof(BFloat16));
  const auto sums = scratch(std::min(m, kBlockRows) * std::min(n, kBlockColumns), sizeof(float));
  auto* packed_a = static_cast<BFloat16*>(pack_a.get());
  auto* packed_b = static_cast<BFloat16*>(pack_b.get());
  if (whole_a) {
    Pack(a, false, 0, m, p.m, p.k, packed_a);
    for (int64_t j = 0; j < n; j += kBlockColumns) {
      const int64_t j1 = std::min(n, j + kBlockColumns);
      Pack(b, true, j, j1, p.n, p.k, packed_b);
      for (int64_t i = 0; i < m; i += kBlockRows) {
        MultiplyBlock(p, packed_a + i * depth, packed_b, i, std::min(m, i + kBlockRows), j, j1,
                      static_cast<float*>(sums.get()));
      }
    }
  } else {
    Pack(b, true, 0, n, p.n, p.k, packed_b);
    for (int64_t i = 0; i < m; i += kBlockRows) {
      const int64_t i1 = std::min(m, i + kBlockRows);
      Pack(a, false, i, i1, p.m, p.k, packed_a);
      for (int64_t j = 0; j < n; j += kBlockColumns) {
        MultiplyBlock(p, packed_a, packed_b + j * depth, i, i1, j, std::min(n, j + kBlockColumns),
                      static_cast<float*>(sums.get()));
      }
    }
  }
  _tile_release();
}

}  // namespace cohort::runtime
#pragma GCC pop_options
#endif
