// Sixteen floats in GCC's vector extension, for the attention and skinny matrix kernels: one source for every
// instruction set. Only for files that are compiled for one instruction set; everything has internal linkage,
// lest the linker mix them.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace cohort::runtime::attention {
namespace {

typedef float V __attribute__((vector_size(64)));
typedef int32_t Vi __attribute__((vector_size(64)));
typedef uint16_t Vh __attribute__((vector_size(32)));
constexpr int kLanes = 16;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

inline V Splat(float x) { return V{} + x; }
inline Vi Iota() { return Vi{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }

inline V Load(const float* p) {
  V v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
inline void Store(float* p, V v) { std::memcpy(p, &v, sizeof(v)); }
inline Vi LoadInts(const int32_t* p) {
  Vi v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

// bf16 is uint16_t here: the upper half of a float.
inline V Load(const uint16_t* p) {
  Vh h;
  std::memcpy(&h, p, sizeof(h));
  return (V)(__builtin_convertvector(h, Vi) << 16);
}
// Rounds to nearest even. NaN may lose its payload but stays NaN.
inline void Store(uint16_t* p, V v) {
  typedef uint32_t Vu __attribute__((vector_size(64)));
  const Vu u = (Vu)v;
  const Vu rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const Vi nan = v != v;  // NOLINT(misc-redundant-expression): what is not itself is NaN
  const Vu bits = nan ? (u >> 16) | 0x40u : rounded;
  const Vh h = __builtin_convertvector(bits, Vh);
  std::memcpy(p, &h, sizeof(h));
}
inline float ToFloat(float x) { return x; }
inline float ToFloat(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float f;
  std::memcpy(&f, &bits, sizeof(f));
  return f;
}
inline void FromFloat(float x, float* p) { *p = x; }
inline void FromFloat(float x, uint16_t* p) {
  uint16_t lanes[kLanes];
  Store(lanes, Splat(x));
  *p = lanes[0];
}

inline V Max(V a, V b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

inline float HorizontalMax(V v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(v);
#else
  float lanes[kLanes];
  Store(lanes, v);
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) lanes[i] = lanes[i] > lanes[i + step] ? lanes[i] : lanes[i + step];
  }
  return lanes[0];
#endif
}
inline float HorizontalSum(V v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(v);
#else
  float lanes[kLanes];
  Store(lanes, v);
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) lanes[i] += lanes[i + step];
  }
  return lanes[0];
#endif
}

// 2^x for x below 127; 0 far below -126, minus infinity included. 2^floor(x) times a polynomial in the rest,
// which interpolates 2^f on [0, 1] at the Chebyshev nodes: relative errors 1e-7 (degree 5) and 1e-4 (degree
// 3, a twentieth of a bf16's rounding).
template <int kDegree>
inline V Exp2(V x) {
  static_assert(kDegree == 3 || kDegree == 5);
#if defined(__AVX512F__)
  const V f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor(x)
#else
  constexpr float kLowest = -127.0f, kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const V clamped = Max(x, Splat(kLowest));
  const V n = ((clamped - 0.5f) + kRound) - kRound;
  const V f = clamped - n;
#endif
  V p;
  if constexpr (kDegree == 5) {
    p = Splat(1.893754058e-03f) * f + 8.949590423e-03f;
    p = p * f + 5.586033708e-02f;
    p = p * f + 2.401418182e-01f;
    p = p * f + 6.931544897e-01f;
    p = p * f + 9.999998984e-01f;
  } else {
    p = Splat(7.896725704e-02f) * f + 2.246931558e-01f;
    p = p * f + 6.963247711e-01f;
    p = p * f + 9.999002882e-01f;
  }
#if defined(__AVX512F__)
  return _mm512_scalef_ps(p, x);  // p 2^floor(x)
#else
  const Vi bits = (Vi)p + (__builtin_convertvector(n, Vi) << 23);
  return x < -126.0f ? Splat(0) : (V)bits;
#endif
}

// out[16][16] = transpose of the 16 x 16 block at `in`.
#if defined(__AVX512F__)
// In registers; also for any other 32-bit elements.
inline void Transpose16(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // r[4 g + j], 128-bit lane l: column 4 l + j of rows 4 g to 4 g + 3.
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88),
                  b = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd);
    const __m512i c = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
    const __m512i d = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);
    t[j] = _mm512_shuffle_i32x4(a, c, 0x88);
    t[8 + j] = _mm512_shuffle_i32x4(a, c, 0xdd);
    t[4 + j] = _mm512_shuffle_i32x4(b, d, 0x88);
    t[12 + j] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}
inline void Transpose16(const float* in, int64_t ld, float* out) {
  __m512i r[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(in + i * ld);
  Transpose16(r);
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + i * 16, r[i]);
}
#else
inline void Transpose16(const float* in, int64_t ld, float* out) {
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < kLanes; ++j) out[j * kLanes + i] = in[i * ld + j];
  }
}
#endif

}  // namespace
}  // namespace cohort::runtime::attention
