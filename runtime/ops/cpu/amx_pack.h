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

// Rows 2i and 2i+1 of x [up to 32, up to 32] interleaved into row i: columns 0-15
// to `left`, 16-31 to `right`.
inline void InterleaveRows(const BFloat16* x, int64_t ldx, int64_t rows, __mmask32 columns, char* left,
                           char* right) {
  for (int64_t i = 0; i < kTile; ++i, x += 2 * ldx, left += 64, right += 64) {
    const __m512i even = 2 * i < rows ? _mm512_maskz_loadu_epi16(columns, x) : _mm512_setzero_si512();
    const __m512i odd =
        2 * i + 1 < rows ? _mm512_maskz_loadu_epi16(columns, x + ldx) : _mm512_setzero_si512();
    // Lane l of low: columns 8l ... 8l+3; of high: columns 8l+4 ... 8l+7.
    const __m512i low = _mm512_unpacklo_epi16(even, odd), high = _mm512_unpackhi_epi16(even, odd);
    const __m512i first = _mm512_shuffle_i64x2(low, high, 0x44);   // low 0, low 1, high 0, high 1
    const __m512i second = _mm512_shuffle_i64x2(low, high, 0xee);  // low 2, low 3, high 2, high 3
    _mm512_storeu_si512(left, _mm512_shuffle_i64x2(first, first, 0xd8));
    _mm512_storeu_si512(right, _mm512_shuffle_i64x2(second, second, 0xd8));
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

// How far ahead of the packing its input is fetched, in bytes of a row.
constexpr int64_t kPackAhead = 512;

inline void PrefetchRows(const BFloat16* x, int64_t ldx, int64_t rows) {
  for (int64_t i = 0; i < rows; ++i) {
    _mm_prefetch(reinterpret_cast<const char*>(x + i * ldx) + kPackAhead, _MM_HINT_T0);
  }
}

// Packs k in [k0, k1) (multiples of 32, `depth` of it existing) of strips [begin, end) (multiples of 32,
// `size` of it existing), strips `strip_size` apart. `as_b`: into B tiles, else A tiles. Walks along the rows
// in memory, whichever dimension they are.
inline void Pack(const Operand& x, bool as_b, int64_t begin, int64_t end, int64_t size, int64_t k0,
                 int64_t k1, int64_t depth, BFloat16* packed, int64_t strip_size) {
  constexpr int64_t kTileBytes = kTileSize * 2;
  alignas(64) char words[2 * kTileBytes];
  for (int64_t outer = x.strips_are_rows ? begin : k0; outer < (x.strips_are_rows ? end : k1);
       outer += kStrip) {
    for (int64_t inner = x.strips_are_rows ? k0 : begin; inner < (x.strips_are_rows ? k1 : end);
         inner += kStrip) {
      const int64_t strip = x.strips_are_rows ? outer : inner, k = x.strips_are_rows ? inner : outer;
      char* tiles =
          reinterpret_cast<char*>(packed + (strip - begin) / kStrip * strip_size + (k - k0) * kStrip);
      if (x.strips_are_rows) {
        const __mmask32 columns = FirstN(depth - k);
        for (int64_t s = strip; s < strip + kStrip; s += kTile, tiles += kTileBytes) {
          const BFloat16* from = x.data + s * x.ld + k;
          const int64_t rows = size - s;
          if (rows >= kTile) PrefetchRows(from, x.ld, kTile);
          if (!as_b) {
            CopyRows(from, x.ld, rows, columns, tiles);
          } else if (rows >= kTile && k + kTileDepth <= depth) {
            TransposeWords(reinterpret_cast<const char*>(from), x.ld * 2, tiles);
          } else {
            CopyRows(from, x.ld, rows, columns, words);
            TransposeWords(words, 64, tiles);
          }
        }
      } else {
        const BFloat16* from = x.data + k * x.ld + strip;
        const __mmask32 columns = FirstN(size - strip);
        if (as_b) {
          InterleaveRows(from, x.ld, depth - k, columns, tiles, tiles + kTileBytes);
        } else {
          PrefetchRows(from, x.ld, kTileDepth);
          InterleaveRows(from, x.ld, depth - k, columns, words, words + kTileBytes);
          TransposeWords(words, 64, tiles);
          TransposeWords(words + kTileBytes, 64, tiles + kTileBytes);
        }
      }
    }
  }
}

}  // namespace cohort::runtime::amx_matmul
