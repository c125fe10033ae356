#include "comm/reduce.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include <bit>
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "comm/processor.h"

namespace cohort::comm {
namespace {

template <typename T>
using BitsOf = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

struct Sum {
  template <typename T>
  static COHORT_INLINE T Apply(T a, T b) {
    if constexpr (std::integral<T>) {
      using U = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<U>(static_cast<U>(a) + static_cast<U>(b)));
    } else {
      return a + b;
    }
  }
};

struct Product {
  template <typename T>
  static COHORT_INLINE T Apply(T a, T b) {
    if constexpr (std::integral<T>) {
      // 64 bits: the product of two 16-bit numbers as int would overflow.
      return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
    } else {
      return a * b;
    }
  }
};

// Equal floats differ at most in the sign of zero: -0 is the smaller one.
struct Min {
  template <typename T>
  static COHORT_INLINE T Apply(T a, T b) {
    if constexpr (std::integral<T>) {
      return a < b ? a : b;
    } else {
      const T equal = std::bit_cast<T>(std::bit_cast<BitsOf<T>>(a) | std::bit_cast<BitsOf<T>>(b));
      return a < b ? a : b < a ? b : a == b ? equal : std::numeric_limits<T>::quiet_NaN();
    }
  }
};

struct Max {
  template <typename T>
  static COHORT_INLINE T Apply(T a, T b) {
    if constexpr (std::integral<T>) {
      return a > b ? a : b;
    } else {
      const T equal = std::bit_cast<T>(std::bit_cast<BitsOf<T>>(a) & std::bit_cast<BitsOf<T>>(b));
      return a > b ? a : b > a ? b : a == b ? equal : std::numeric_limits<T>::quiet_NaN();
    }
  }
};

COHORT_INLINE float LoadBFloat16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Branch-free BFloat16(float), so that loops over it become vectors.
COHORT_INLINE uint16_t StoreBFloat16(float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const uint32_t nan = (u >> 16) | 0x40u;
  return static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

// The body of all loops. `ivdep`: out may be a or b themselves, which carries nothing from one turn to the
// next.
template <typename T, typename Op>
COHORT_INLINE void Loop(const std::byte* a_bytes, const std::byte* b_bytes, std::byte* out_bytes,
                        size_t count) {
  if constexpr (std::same_as<T, BFloat16>) {
    const auto* a = reinterpret_cast<const uint16_t*>(a_bytes);
    const auto* b = reinterpret_cast<const uint16_t*>(b_bytes);
    auto* out = reinterpret_cast<uint16_t*>(out_bytes);
#pragma GCC ivdep
    for (size_t i = 0; i < count; ++i) {
      out[i] = StoreBFloat16(Op::template Apply<float>(LoadBFloat16(a[i]), LoadBFloat16(b[i])));
    }
  } else if constexpr (std::same_as<T, Float16>) {
    const auto* a = reinterpret_cast<const Float16*>(a_bytes);
    const auto* b = reinterpret_cast<const Float16*>(b_bytes);
    auto* out = reinterpret_cast<Float16*>(out_bytes);
    for (size_t i = 0; i < count; ++i) {
      out[i] = Float16(Op::template Apply<float>(static_cast<float>(a[i]), static_cast<float>(b[i])));
    }
  } else {
    const auto* a = reinterpret_cast<const T*>(a_bytes);
    const auto* b = reinterpret_cast<const T*>(b_bytes);
    auto* out = reinterpret_cast<T*>(out_bytes);
#pragma GCC ivdep
    for (size_t i = 0; i < count; ++i) out[i] = Op::template Apply<T>(a[i], b[i]);
  }
}

template <typename T, typename Op>
void Baseline(const std::byte* a, const std::byte* b, std::byte* out, size_t count) {
  Loop<T, Op>(a, b, out, count);
}

#ifdef __x86_64__

// f16 is widened by hand, eight at a time: g++ 12 makes no vectors of _Float16 conversions.
template <typename Op>
COHORT_INLINE COHORT_AVX2 size_t Float16Head(const std::byte* a, const std::byte* b, std::byte* out,
                                             size_t count) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    alignas(32) float x[8], y[8];
    const auto* a_at = reinterpret_cast<const __m128i*>(a + 2 * i);
    const auto* b_at = reinterpret_cast<const __m128i*>(b + 2 * i);
    _mm256_store_ps(x, _mm256_cvtph_ps(_mm_loadu_si128(a_at)));
    _mm256_store_ps(y, _mm256_cvtph_ps(_mm_loadu_si128(b_at)));
    for (int j = 0; j < 8; ++j) x[j] = Op::template Apply<float>(x[j], y[j]);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * i),
                     _mm256_cvtps_ph(_mm256_load_ps(x), _MM_FROUND_TO_NEAREST_INT));
  }
  return i;
}

template <typename T, typename Op>
COHORT_AVX2 void Avx2(const std::byte* a, const std::byte* b, std::byte* out, size_t count) {
  size_t done = 0;
  if constexpr (std::same_as<T, Float16>) done = Float16Head<Op>(a, b, out, count);
  const size_t skip = done * sizeof(T);
  Loop<T, Op>(a + skip, b + skip, out + skip, count - done);
}

template <typename T, typename Op>
COHORT_AVX512 void Avx512(const std::byte* a, const std::byte* b, std::byte* out, size_t count) {
  size_t done = 0;
  if constexpr (std::same_as<T, Float16>) done = Float16Head<Op>(a, b, out, count);
  const size_t skip = done * sizeof(T);
  Loop<T, Op>(a + skip, b + skip, out + skip, count - done);
}

template <typename T, typename Op>
ReduceFunction Choose() {
  switch (GetProcessorLevel()) {
    case ProcessorLevel::kAvx512:
      return Avx512<T, Op>;
    case ProcessorLevel::kAvx2:
      return Avx2<T, Op>;
    case ProcessorLevel::kBaseline:
      break;
  }
  return Baseline<T, Op>;
}

#else

template <typename T, typename Op>
ReduceFunction Choose() {
  return Baseline<T, Op>;
}

#endif  // __x86_64__

template <typename T>
ReduceFunction ChooseOp(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return Choose<T, Sum>();
    case ReduceOp::kMin:
      return Choose<T, Min>();
    case ReduceOp::kMax:
      return Choose<T, Max>();
    case ReduceOp::kProduct:
      return Choose<T, Product>();
  }
  return nullptr;
}

}  // namespace

ReduceFunction FindReduce(DataType dtype, ReduceOp op) {
  switch (dtype) {
#define COHORT_X(enumerator, type, name, accumulator) \
  case DataType::enumerator:                          \
    return ChooseOp<type>(op);
    COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
  }
  return nullptr;
}

}  // namespace cohort::comm
