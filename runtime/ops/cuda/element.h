// The element types as device code sees them: the bits of comm/data_type.h, with conversions that device code may call,
// and loads and stores of eight elements at a time.
#pragma once

#include "runtime/ops/cuda/language.h"
#if defined(COHORT_DEVICE_CODE)
#include "runtime/ops/cuda/ptx.h"
#endif

namespace cohort::runtime::COHORT_CUDA {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
static_assert(sizeof(Bf16) == 2 && sizeof(F16) == 2);

// Elements that elementwise and row kernels take at a time.
inline constexpr int kGroup = 8;

// The float types of comm/data_type.h, which costs .cu files more to include than it gives.
enum class FloatType : uint8_t { kF32, kBF16, kF16, kF64 };

#if defined(COHORT_DEVICE_CODE)
__device__ __forceinline__ float BitsToFloat(uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ uint32_t FloatToBits(float value) { return __float_as_uint(value); }

// ---- to float and double: exact ----
__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(Bf16 x) { return BitsToFloat(static_cast<uint32_t>(x.bits) << 16); }
__device__ __forceinline__ float ToFloat(F16 x) {
  const uint32_t sign = (x.bits & 0x8000u) << 16, exponent = (x.bits >> 10) & 0x1fu,
                 mantissa = x.bits & 0x3ffu;
  if (exponent == 0) return BitsToFloat(sign | FloatToBits(static_cast<float>(mantissa) * 0x1p-24f));
  return BitsToFloat(sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | mantissa << 13);
}
__device__ __forceinline__ double ToDouble(double x) { return x; }
template <typename T>
__device__ __forceinline__ double ToDouble(T x) {
  return ToFloat(x);
}

// ---- from float: to nearest even, as BFloat16 and Float16 of comm/data_type.h round ----
template <typename T>
__device__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ Bf16 FromFloat<Bf16>(float x) {
  const uint32_t u = FloatToBits(x);
  const uint32_t rounded =
      (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return {static_cast<uint16_t>(rounded)};
}
template <>
__device__ __forceinline__ F16 FromFloat<F16>(float x) {
  const uint32_t u = FloatToBits(x), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  } else if (magnitude >= 0x47800000u) {
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    half = FloatToBits(BitsToFloat(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(sign | half)};
}

// ---- from double: one rounding (runtime/ops/convert.h, RoundToOdd: Boldo & Melquiond, 2008) ----
template <typename T>
__device__ __forceinline__ T FromDouble(double x) {
  float nearest = static_cast<float>(x);
  const double back = nearest;
  const bool infinite = (FloatToBits(nearest) & 0x7f800000u) == 0x7f800000u;  // or not a number
  if (back != x && !infinite && (FloatToBits(nearest) & 1u) == 0) {
    // The other neighbour of x: away from zero where x lies there. A rounding to zero keeps x's sign.
    const bool outward = (x < 0 ? -x : x) > (back < 0 ? -back : back);
    nearest = BitsToFloat(outward ? FloatToBits(nearest) + 1u : FloatToBits(nearest) - 1u);
  }
  return FromFloat<T>(nearest);
}
template <>
__device__ __forceinline__ float FromDouble<float>(double x) {
  return static_cast<float>(x);
}
template <>
__device__ __forceinline__ double FromDouble<double>(double x) {
  return x;
}

// An element whose type only the run knows.
__device__ __forceinline__ double LoadAny(const void* x, FloatType type, int64_t i) {
  switch (type) {
    case FloatType::kF32:
      return static_cast<const float*>(x)[i];
    case FloatType::kBF16:
      return ToFloat(static_cast<const Bf16*>(x)[i]);
    case FloatType::kF16:
      return ToFloat(static_cast<const F16*>(x)[i]);
    case FloatType::kF64:
      return static_cast<const double*>(x)[i];
  }
  return 0;
}
__device__ __forceinline__ void StoreAny(void* x, FloatType type, int64_t i, double value) {
  switch (type) {
    case FloatType::kF32:
      static_cast<float*>(x)[i] = static_cast<float>(value);
      break;
    case FloatType::kBF16:
      static_cast<Bf16*>(x)[i] = FromDouble<Bf16>(value);
      break;
    case FloatType::kF16:
      static_cast<F16*>(x)[i] = FromDouble<F16>(value);
      break;
    case FloatType::kF64:
      static_cast<double*>(x)[i] = value;
      break;
  }
}

// ---- eight at a time ----
// Threads take groups of eight neighbours, whatever the alignment, so that sums are made in the same order; `wide` says
// that the group is whole and 16-byte aligned. Elements from `count` on are read as zero and not written.

__device__ __forceinline__ void Load8(const float* p, bool wide, int count, float (&x)[kGroup]) {
  if (wide) {
    const float4 a = *reinterpret_cast<const float4*>(p), b = *reinterpret_cast<const float4*>(p + 4);
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
  } else {
#pragma unroll
    for (int j = 0; j < kGroup; ++j) x[j] = j < count ? p[j] : 0.0f;
  }
}
__device__ __forceinline__ void Load8(const Bf16* p, bool wide, int count, float (&x)[kGroup]) {
  if (wide) {
    const uint4 a = *reinterpret_cast<const uint4*>(p);
    const uint32_t words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      x[2 * j] = BitsToFloat(words[j] << 16);
      x[2 * j + 1] = BitsToFloat(words[j] & 0xffff0000u);
    }
  } else {
#pragma unroll
    for (int j = 0; j < kGroup; ++j) x[j] = j < count ? ToFloat(p[j]) : 0.0f;
  }
}
__device__ __forceinline__ void Store8(float* p, bool wide, int count, const float (&x)[kGroup]) {
  if (wide) {
    *reinterpret_cast<float4*>(p) = make_float4(x[0], x[1], x[2], x[3]);
    *reinterpret_cast<float4*>(p + 4) = make_float4(x[4], x[5], x[6], x[7]);
  } else {
#pragma unroll
    for (int j = 0; j < kGroup; ++j) {
      if (j < count) p[j] = x[j];
    }
  }
}
// The wide way rounds two at a time by an instruction, as FromFloat does but for the bits of a NaN: in integers,
// rounding would be most of the work of an addition.
__device__ __forceinline__ void Store8(Bf16* p, bool wide, int count, const float (&x)[kGroup]) {
  if (wide) {
    uint32_t words[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) words[j] = PackBf16(x[2 * j], x[2 * j + 1]);
    *reinterpret_cast<uint4*>(p) = make_uint4(words[0], words[1], words[2], words[3]);
  } else {
#pragma unroll
    for (int j = 0; j < kGroup; ++j) {
      if (j < count) p[j] = FromFloat<Bf16>(x[j]);
    }
  }
}

#endif  // COHORT_DEVICE_CODE

// Whether p may be read and written sixteen bytes at a time, every group of eight elements of rows of `width` included.
inline bool Aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }
template <typename... P>
inline bool WideGroups(int64_t width, const P*... pointers) {
  return width % kGroup == 0 && (Aligned16(pointers) && ...);
}

}  // namespace cohort::runtime::COHORT_CUDA
