// Packing of bf16 matrices into AMX tiles. Included by amx_matmul.cc only, inside its target pragma.
//
// A tile is 16 rows of 64 bytes. An A tile holds 16 rows of A and 32 of its columns (k). A B tile holds, in
// row i, rows 2i and 2i+1 of B (k) interleaved, for 16 of its columns. So as 32-bit words an A tile of rows x
// pairs of k is the transpose of what a B tile of the same numbers would be, and four ways of packing are
// made of three steps: copy, interleave two rows, transpose 16 x 16 words.
//
// A packed matrix is a row of strips. A strip has 32 rows of A (or columns of B) and all of k: for each 32 of
// k, two tiles one after the other. What lies past the matrix's edges is zero.
#pragma once

namespace cohort::runtime::amx_matmul {

constexpr int64_t kTile = 16;                      // rows of a tile
constexpr int64_t kTileDepth = 32;                 // bf16 in a row of a tile
constexpr int64_t kTileSize = kTile * kTileDepth;  // bf16 in a tile
constexpr int64_t kStrip = 2 * kTile;              // rows of A or columns of B in a strip

inline __mmask32 FirstN(int64_t n) { return n >= 32 ? 0xffffffffu : (n <= 0 ? 0u : (1u << n) - 1); }

// to[i][j] = from[j][i], 16 x 16 words of 32 bits; rows of `from` are `stride` bytes apart. The loads do half
// of the shuffling: vector (i, q) gets words 4q ... 4q+3 of rows i, i+4, i+8, i+12, which leaves 4 x 4
// transposes in lanes.
inline void TransposeWords(const char* from, int64_t stride, char* to) {
  for (int q = 0; q < 4; ++q) {
    __m512i v[4];
    for (int i = 0; i < 4; ++i) {
      const char* row = from + i * stride + q * 16;
      v[i] = _mm512_castsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row)));
      v[i] = _mm512_mask_broadcast_i32x4(v[i], 0x00f0,
                                         _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 4 * stride)));
      v[i] = _mm512_mask_broadcast_i32x4(v[i], 0x0f00,
                                         _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 8 * stride)));
      v[i] = _mm512_mask_broadcast_i32x4(
          v[i], 0xf000, _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 12 * stride)));
    }
    const __m512i low01 = _mm512_unpacklo_epi32(v[0], v[1]), high01 = _mm512_unpackhi_epi32(v[0], v[1]);
    const __m512i low23 = _mm512_unpacklo_epi32(v[2], v[3]), high23 = _mm512_unpackhi_epi32(v[2], v[3]);
    char* out = to + q * 4 * 64;
    _mm512_storeu_si512(out, _mm512_unpacklo_epi64(low01, low23));
    _mm512_storeu_si512(out + 64, _mm512_unpackhi_epi64(low01, low23));
    _mm512_storeu_si512(out + 128, _mm512_unpacklo_epi64(high01, high23));
    _mm512_storeu_si512(out + 192, _mm512_unpackhi_epi64(high01, high23));
  }
}

// Rows 2i and 2i+1 of x [up to 32, up to 16] interleaved into row i of `to`.
inline void InterleaveRows(const BFloat16* x, int64_t ldx, int64_t rows, __mmask16 columns, char* to) {
  for (int64_t i = 0; i < kTile; ++i) {
    __m512i pair = _mm512_setzero_si512();
    if (2 * i < rows) pair = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(columns, x + 2 * i * ldx));
    if (2 * i + 1 < rows) {
      const __m512i odd = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(columns, x + (2 * i + 1) * ldx));
      pair = _mm512_or_si512(pair, _mm512_slli_epi32(odd, 16));
    }
    _mm512_storeu_si512(to + i * 64, pair);
  }
}

// 16 rows and 32 columns of x, of which `rows` and `columns` exist, copied.
inline void CopyRows(const BFloat16* x, int64_t ldx, int64_t rows, __mmask32 columns, char* to) {
  for (int64_t i = 0; i < kTile; ++i) {
    const __m512i row = i < rows ? _mm512_maskz_loadu_epi16(columns, x + i * ldx) : _mm512_setzero_si512();
    _mm512_storeu_si512(to + i * 64, row);
  }
}

// A matrix in memory: `strips` counts the dimension that is cut into strips (m of A, n of B), `depth` is k.
// strips_are_rows: element (s, k) is data[s ld + k], otherwise data[k ld + s].
struct Operand {
  const BFloat16* data;
  int64_t ld;
  bool strips_are_rows;
};

// Packs strips [begin, end) of the dimension (multiples of 32, `size` of it existing) and all of depth.
// `as_b`: into B tiles, else A tiles.
inline void Pack(const Operand& x, bool as_b, int64_t begin, int64_t end, int64_t size, int64_t depth,
                 BFloat16* packed) {
  alignas(64) char words[kTile * 64];
  char* to = reinterpret_cast<char*>(packed);
  for (int64_t strip = begin; strip < end; strip += kStrip) {
    for (int64_t k = 0; k < depth; k += kTileDepth) {
      for (int64_t s = strip; s < strip + kStrip; s += kTile, to += kTile * 64) {
        const int64_t here = size - s;
        if (x.strips_are_rows) {
          const BFloat16* from = x.data + s * x.ld + k;
          if (!as_b) {
            CopyRows(from, x.ld, here, FirstN(depth - k), to);
          } else if (here >= kTile && k + kTileDepth <= depth) {
            TransposeWords(reinterpret_cast<const char*>(from), x.ld * 2, to);
          } else {
            CopyRows(from, x.ld, here, FirstN(depth - k), words);
            TransposeWords(words, 64, to);
          }
        } else {
          const BFloat16* from = x.data + k * x.ld + s;
          const auto columns = static_cast<__mmask16>(FirstN(here < kTile ? here : kTile));
          if (as_b) {
            InterleaveRows(from, x.ld, depth - k, columns, to);
          } else {
            InterleaveRows(from, x.ld, depth - k, columns, words);
            TransposeWords(words, 64, to);
          }
        }
      }
    }
  }
}

}  // namespace cohort::runtime::amx_matmul
