// Sixteen floats at a time. Written with GCC's vector extension, which becomes one AVX-512 register or four
// SSE ones as the including file's target says. Included only by kernels_<isa>.cc, inside its target pragma.
// That file defines COHORT_ISA, the namespace of everything here, so that no two targets share a symbol; and
// where it has them COHORT_ISA_AVX512 and COHORT_ISA_BF16, because the compiler's own macros do not follow
// the pragma when ccache preprocesses.
#pragma once

namespace cohort::runtime::COHORT_ISA {

#define COHORT_INLINE inline __attribute__((always_inline))

constexpr int64_t kLanes = 16;
typedef float F32x16 __attribute__((vector_size(64)));
typedef int32_t I32x16 __attribute__((vector_size(64)));
typedef uint32_t U32x16 __attribute__((vector_size(64)));
typedef uint16_t U16x16 __attribute__((vector_size(32)));
typedef float UnalignedF32x16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t UnalignedU16x16 __attribute__((vector_size(32), aligned(2), may_alias));

COHORT_INLINE F32x16 Broadcast(float x) { return F32x16{} + x; }

// GCC 12 makes one instruction of these only where it is named.
#ifdef COHORT_ISA_AVX512
COHORT_INLINE U32x16 Widen(U16x16 x) { return (U32x16)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)x); }
COHORT_INLINE U16x16 Narrow(U32x16 x) { return (U16x16)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)x); }
#else
COHORT_INLINE U32x16 Widen(U16x16 x) { return __builtin_convertvector(x, U32x16); }
COHORT_INLINE U16x16 Narrow(U32x16 x) { return __builtin_convertvector(x, U16x16); }
#endif

COHORT_INLINE F32x16 Load(const float* p) { return *reinterpret_cast<const UnalignedF32x16*>(p); }
COHORT_INLINE F32x16 Load(const BFloat16* p) {
  const U16x16 bits = *reinterpret_cast<const UnalignedU16x16*>(p);
  return (F32x16)(Widen(bits) << 16);
}

COHORT_INLINE float ToScalar(float x) { return x; }
COHORT_INLINE float ToScalar(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

COHORT_INLINE void Store(float* p, F32x16 x) { *reinterpret_cast<UnalignedF32x16*>(p) = x; }
// Rounds to nearest even; NaN stays NaN (as BFloat16(float) does).
COHORT_INLINE void StoreExactly(BFloat16* p, F32x16 x) {
  const U32x16 u = (U32x16)x;
  const U32x16 rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const U32x16 quiet = (u >> 16) | 0x40u;
  const U32x16 bits = x == x ? rounded : quiet;  // NOLINT(misc-redundant-expression): NaN is not itself
  *reinterpret_cast<UnalignedU16x16*>(p) = Narrow(bits);
}
COHORT_INLINE void StoreExactly(float* p, F32x16 x) { Store(p, x); }

// The same, except that where the hardware has an instruction for it, numbers below 2^-126 become zero.
COHORT_INLINE void Store(BFloat16* p, F32x16 x) {
#ifdef COHORT_ISA_BF16
  *reinterpret_cast<UnalignedU16x16*>(p) = (U16x16)_mm512_cvtneps_pbh((__m512)x);
#else
  StoreExactly(p, x);
#endif
}

// The first n < 16 elements; the other lanes are zero.
template <typename T>
COHORT_INLINE F32x16 LoadPartial(const T* p, int64_t n) {
  T full[kLanes] = {};
  __builtin_memcpy(static_cast<void*>(full), p, static_cast<size_t>(n) * sizeof(T));
  return Load(full);
}
template <typename T>
COHORT_INLINE void StorePartial(T* p, F32x16 x, int64_t n) {
  T full[kLanes];
  Store(full, x);
  __builtin_memcpy(static_cast<void*>(p), full, static_cast<size_t>(n) * sizeof(T));
}

// Where either is NaN: b.
#ifdef COHORT_ISA_AVX512
COHORT_INLINE F32x16 Max(F32x16 a, F32x16 b) {
  return (F32x16)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
}
COHORT_INLINE F32x16 Min(F32x16 a, F32x16 b) {
  return (F32x16)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b);
}
#else
COHORT_INLINE F32x16 Max(F32x16 a, F32x16 b) { return a > b ? a : b; }
COHORT_INLINE F32x16 Min(F32x16 a, F32x16 b) { return a < b ? a : b; }
#endif

COHORT_INLINE float Sum(F32x16 x) {
  float lanes[kLanes];
  Store(lanes, x);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}
COHORT_INLINE float MaxLane(F32x16 x) {
  float lanes[kLanes];
  Store(lanes, x);
  for (int i = 1; i < kLanes; ++i) lanes[0] = lanes[i] > lanes[0] ? lanes[i] : lanes[0];
  return lanes[0];
}

// p 2^n for integers n in [-151, 129], p in [0.7, 1.5].
COHORT_INLINE F32x16 ScaleByPowerOfTwo(F32x16 p, F32x16 n) {
#ifdef COHORT_ISA_AVX512
  return (F32x16)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)n);
#else
  // In two factors, because one may be beyond the range of floats.
  const I32x16 exponent = __builtin_convertvector(n, I32x16);
  const I32x16 half = exponent >> 1;
  return p * (F32x16)((half + 127) << 23) * (F32x16)((exponent - half + 127) << 23);
#endif
}

// e^x to about one unit in the last place; 0 far below, infinity far above. 2^n e^r with n the nearest
// integer to x / ln 2, and Cody & Waite's two-step subtraction for r. The polynomial is the Taylor series to
// r^7 / 7!, whose error at |r| = ln 2 / 2 is below 2^-26.
COHORT_INLINE F32x16 Exp(F32x16 x) {
  // Beyond these the result is 0 or infinity anyway. NaN stays.
  const F32x16 in = Max(Broadcast(-104.0f), Min(Broadcast(89.0f), x));
  constexpr float kMagic = 12582912.0f;  // 1.5 2^23: adding and subtracting it rounds to an integer
  const F32x16 n = (in * 1.44269504f + kMagic) - kMagic;
  const F32x16 r = (in - n * 0.693359375f) - n * -2.12194440e-4f;
  F32x16 p = r * (1.0f / 5040) + (1.0f / 720);
  p = p * r + (1.0f / 120);
  p = p * r + (1.0f / 24);
  p = p * r + (1.0f / 6);
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return ScaleByPowerOfTwo(p, n);
}

// 1 / x for x in [1, infinity].
COHORT_INLINE F32x16 Reciprocal(F32x16 x) {
#ifdef COHORT_ISA_AVX512
  // 14 bits from the hardware and one step of Newton's method; infinity would give 0 times infinity there.
  const F32x16 guess = (F32x16)_mm512_rcp14_ps((__m512)x);
  const F32x16 better = guess * (2.0f - x * guess);
  return x > 1e38f ? guess : better;
#else
  return 1.0f / x;
#endif
}

COHORT_INLINE F32x16 Sigmoid(F32x16 x) { return Reciprocal(1.0f + Exp(-x)); }

// Calls body(i, load, store) for each full vector of [0, n), then for the rest; load(p) and store(p, x) move
// lanes [i, i + 16) of an array that begins at p, or what there is of them.
template <typename Body>
COHORT_INLINE void ForVectors(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    body(
        [i](const auto* p) __attribute__((always_inline)) { return Load(p + i); },
        [i](auto* p, F32x16 x) __attribute__((always_inline)) { Store(p + i, x); });
  }
  if (i < n) {
    const int64_t rest = n - i;
    body(
        [ i, rest ](const auto* p) __attribute__((always_inline)) { return LoadPartial(p + i, rest); },
        [ i, rest ](auto* p, F32x16 x) __attribute__((always_inline)) { StorePartial(p + i, x, rest); });
  }
}

}  // namespace cohort::runtime::COHORT_ISA
