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

// Of C. With 512 of k, half a MiB of A in the second-level cache. Half of that where C is f32 and updated in
// place, because its lines pass through that cache too (measured).
constexpr int64_t kBlockRows = 512, kBlockRowsInPlace = 256;
constexpr int64_t kBlockColumns = 512;  // of C
constexpr int64_t kBlockDepth = 512;    // of k: a strip of B fills two thirds of the first-level cache

int64_t RoundUp(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Lines of memory that will be needed soon: `lines` in each row, rows `stride` bytes apart. They are asked
// for a few at a time, between tile products, which use no load ports' time that these would need.
struct Ahead {
  const char* row = nullptr;
  int64_t lines = 1, stride = 0;
  int64_t rows_left = 0, line = 0;
  int64_t per_step = 0;

  void Step() {
    for (int64_t i = 0; i < per_step && rows_left > 0; ++i) {
      _mm_prefetch(row + line * 64, _MM_HINT_T1);
      if (++line == lines) {
        line = 0;
        row += stride;
        --rows_left;
      }
    }
  }
};

// c [32, 32] = or += strips a and b over `tiles` tiles of depth. The compiler does not see what tile
// instructions read, so nothing may move across this function: it is not inlined, and has barriers.
__attribute__((noinline)) void MultiplyStrips(const BFloat16* a, const BFloat16* b, int64_t tiles, float* c,
                                              int64_t ldc, bool add, Ahead& next_c, Ahead& next_b) {
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
  for (int64_t k = 0; k < tiles; ++k) {
    // A passes by: the hint keeps it from displacing B in the first-level cache.
    _tile_loadd(6, b, 64);
    _tile_stream_loadd(4, a, 64);
    _tile_loadd(7, b + kTileSize, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_stream_loadd(5, a + kTileSize, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    a += 2 * kTileSize;
    b += 2 * kTileSize;
    next_c.Step();
    next_b.Step();
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

// How a product is cut.
struct Blocking {
  int64_t m, n, depth;        // rounded up to whole strips and tiles
  int64_t strip_size;         // elements of a packed strip with all its depth
  int64_t parts, part_tiles;  // k in parts of equal depth
};

Blocking BlockingOf(const AmxProduct& p) {
  Blocking blocking;
  blocking.m = RoundUp(p.m, kStrip);
  blocking.n = RoundUp(p.n, kStrip);
  blocking.depth = RoundUp(p.k, kTileDepth);
  blocking.strip_size = blocking.depth * kStrip;
  blocking.parts = (p.k + kBlockDepth - 1) / kBlockDepth;
  const int64_t tiles = blocking.depth / kTileDepth;
  blocking.part_tiles = (tiles + blocking.parts - 1) / blocking.parts;
  return blocking;
}

// Where a block finds the strips of B: packed before, or to be packed by it, part by
// part, when they are needed.
struct StripsOfB {
  Operand source;
  BFloat16* packed;  // from column j0 on
  bool pack;         // by this block
  bool keep;         // in `packed`, for later blocks; else there is room for one part of one strip only
};

// The lines of B's strip at column j, k in [k0, k1).
Ahead SourceAhead(const Operand& b, int64_t j, int64_t n, int64_t k0, int64_t k1, int64_t steps) {
  Ahead ahead;
  const int64_t columns = std::min(kStrip, n - j), depth = k1 - k0;
  if (columns <= 0 || depth <= 0) return ahead;
  ahead.row = reinterpret_cast<const char*>(b.data + (b.strips_are_rows ? j * b.ld + k0 : k0 * b.ld + j));
  ahead.lines = ((b.strips_are_rows ? depth : columns) * 2 + 63) / 64;
  ahead.stride = b.ld * 2;
  ahead.rows_left = b.strips_are_rows ? columns : depth;
  ahead.per_step = (ahead.lines * ahead.rows_left + steps - 1) / steps;
  return ahead;
}

// Packs rows [i0, i1) of A as MultiplyBlock reads them: part by part of k, in each part strip by strip.
void PackBlockOfA(const AmxProduct& p, const Blocking& blocking, int64_t i0, int64_t i1, BFloat16* packed) {
  const Operand a{p.a, p.lda, !p.transpose_a};
  const int64_t part = blocking.part_tiles * kTileDepth;
  for (int64_t k0 = 0; k0 < blocking.depth; k0 += part) {
    const int64_t k1 = std::min(k0 + part, blocking.depth);
    Pack(a, false, i0, i1, p.m, k0, k1, p.k, packed + (i1 - i0) * k0, (k1 - k0) * kStrip);
  }
}

// Rows [i0, i1) and columns [j0, j1) of C. a: that block, packed. sums: scratch, 32 x 32
// for each pair of strips.
void MultiplyBlock(const AmxProduct& p, const Blocking& blocking, const BFloat16* a, const StripsOfB& b,
                   int64_t i0, int64_t i1, int64_t j0, int64_t j1, float* sums) {
  const int64_t row_strips = (i1 - i0) / kStrip, depth_tiles = blocking.depth / kTileDepth;
  for (int64_t first = 0; first < depth_tiles; first += blocking.part_tiles) {
    const int64_t tiles = std::min(blocking.part_tiles, depth_tiles - first);
    const int64_t k0 = first * kTileDepth, k1 = k0 + tiles * kTileDepth;
    const bool last = first + tiles == depth_tiles;
    for (int64_t j = j0; j < j1; j += kStrip) {
      BFloat16* b_strip = b.packed;
      if (b.keep) b_strip += (j - j0) / kStrip * blocking.strip_size + k0 * kStrip;
      Ahead next_b;
      if (b.pack) {
        Pack(b.source, true, j, j + kStrip, p.n, k0, k1, p.k, b_strip, blocking.strip_size);
        if (j + kStrip < j1) {
          next_b = SourceAhead(b.source, j + kStrip, p.n, k0, std::min(k1, p.k), row_strips * tiles);
        } else if (!last) {
          const int64_t end = std::min(p.k, k1 + blocking.part_tiles * kTileDepth);
          next_b = SourceAhead(b.source, j0, p.n, k1, end, row_strips * tiles);
        }
      } else if (j + kStrip < j1) {
        next_b = {.row = reinterpret_cast<const char*>(b_strip + blocking.strip_size),
                  .lines = tiles * 32,
                  .rows_left = 1,
                  .per_step = (32 + row_strips - 1) / row_strips};
      }
      for (int64_t i = i0; i < i1; i += kStrip) {
        const BFloat16* a_strip = a + (i1 - i0) * k0 + (i - i0) * (k1 - k0);
        const bool inside = i + kStrip <= p.m && j + kStrip <= p.n;
        Ahead next_c;
        if (p.output == DataType::kF32 && inside) {
          float* c = static_cast<float*>(p.c) + i * p.ldc + j;
          // The block of C below this one, or the top of the next column of blocks.
          const bool down = i + kStrip < i1;
          next_c = {.row = reinterpret_cast<const char*>(
                        down ? c + kStrip * p.ldc : static_cast<float*>(p.c) + i0 * p.ldc + j + kStrip),
                    .lines = 2,
                    .stride = p.ldc * 4,
                    .rows_left = down ? std::min(kStrip, p.m - i - kStrip) : kStrip,
                    .per_step = (2 * kStrip + tiles - 1) / tiles};
          MultiplyStrips(a_strip, b_strip, tiles, c, p.ldc, p.accumulate || first > 0, next_c, next_b);
          continue;
        }
        float* block = sums + ((j - j0) / kStrip * row_strips + (i - i0) / kStrip) * kStrip * kStrip;
        MultiplyStrips(a_strip, b_strip, tiles, block, kStrip, first > 0, next_c, next_b);
        if (last) StoreSums(block, p, i, j);
      }
    }
  }
}

std::shared_ptr<void> Scratch(int64_t elements, size_t size) {
  return CpuDevice().Allocate(static_cast<size_t>(elements) * size);
}

}  // namespace
}  // namespace amx_matmul

void MultiplyOnTiles(const AmxProduct& p) {
  using namespace amx_matmul;
  const TileConfig config;
  _tile_loadconfig(&config);
  const Operand b{p.b, p.ldb, p.transpose_b};
  const Blocking blocking = BlockingOf(p);
  const int64_t m = blocking.m, n = blocking.n, depth = blocking.depth;
  const int64_t block_rows = p.output == DataType::kF32 ? kBlockRowsInPlace : kBlockRows;
  const auto sums = Scratch(std::min(m, block_rows) * std::min(n, kBlockColumns), sizeof(float));
  auto* const block_sums = static_cast<float*>(sums.get());
  // The smaller operand is packed whole, the other one a block at a time.
  if (m <= n) {
    const bool once = m <= block_rows;  // each strip of B is used by one block of A only
    const auto pack_a = Scratch(m * depth, sizeof(BFloat16));
    const auto pack_b = Scratch(
        once ? blocking.part_tiles * 2 * kTileSize : std::min(n, kBlockColumns) * depth, sizeof(BFloat16));
    auto* const packed_a = static_cast<BFloat16*>(pack_a.get());
    for (int64_t i = 0; i < m; i += block_rows) {
      PackBlockOfA(p, blocking, i, std::min(m, i + block_rows), packed_a + i * depth);
    }
    for (int64_t j = 0; j < n; j += kBlockColumns) {
      for (int64_t i = 0; i < m; i += block_rows) {
        const StripsOfB strips{b, static_cast<BFloat16*>(pack_b.get()), /*pack=*/i == 0, /*keep=*/!once};
        MultiplyBlock(p, blocking, packed_a + i * depth, strips, i, std::min(m, i + block_rows), j,
                      std::min(n, j + kBlockColumns), block_sums);
      }
    }
  } else {
    const auto pack_a = Scratch(std::min(m, block_rows) * depth, sizeof(BFloat16));
    const auto pack_b = Scratch(n * depth, sizeof(BFloat16));
    auto* const packed_a = static_cast<BFloat16*>(pack_a.get());
    auto* const packed_b = static_cast<BFloat16*>(pack_b.get());
    for (int64_t i = 0; i < m; i += block_rows) {
      const int64_t i1 = std::min(m, i + block_rows);
      PackBlockOfA(p, blocking, i, i1, packed_a);
      for (int64_t j = 0; j < n; j += kBlockColumns) {
        const StripsOfB strips{b, packed_b + j * depth, /*pack=*/i == 0, /*keep=*/true};
        MultiplyBlock(p, blocking, packed_a, strips, i, i1, j, std::min(n, j + kBlockColumns), block_sums);
      }
    }
  }
  _tile_release();
}

}  // namespace cohort::runtime
#pragma GCC pop_options
#endif
