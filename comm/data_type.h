// The data types that cross a wire or sit in a tensor: one table, which everything that lists them iterates.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace cohort {

// bfloat16: the upper half of a float32. Rounding is to nearest even; NaN stays NaN.
struct BFloat16 {
  uint16_t bits = 0;
  BFloat16() = default;
  explicit BFloat16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<uint16_t>((u >> 16) | 0x40u);
    } else {
      bits = static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
    }
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

// IEEE 754 binary16. Rounding is to nearest even; what is too large becomes infinite, NaN stays NaN.
struct Float16 {
  uint16_t bits = 0;
  Float16() = default;
  explicit Float16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    const uint32_t sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) {  // NaN
      half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    } else if (magnitude >= 0x47800000u) {  // 2^16 and above
      half = 0x7c00u;
    } else if (magnitude <
               0x38800000u) {  // below 2^-14: adding 1/2 shifts and rounds the subnormal's bits into place
      half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
    } else {  // rebias the exponent by 15 - 127 and round; a carry runs into the exponent, as it must
      half = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;
    }
    bits = static_cast<uint16_t>(sign | half);
  }
  explicit operator float() const {
    const uint32_t sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
    if (exponent == 0) {  // mantissa * 2^-24
      const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
      return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
    }
    const uint32_t rebiased = exponent == 31 ? 255 : exponent + 112;
    return std::bit_cast<float>(sign | rebiased << 23 | mantissa << 13);
  }
};

// X(enumerator, C++ type, name, type in which sums are accumulated). The name is what configs, errors and
// benchmarks say; safetensors' own spelling is in runtime/checkpoint.
#define COHORT_DATA_TYPES(X)        \
  X(kF32, float, "f32", float)      \
  X(kBF16, BFloat16, "bf16", float) \
  X(kF16, Float16, "f16", float)    \
  X(kF64, double, "f64", double)    \
  X(kI8, int8_t, "i8", int8_t)      \
  X(kU8, uint8_t, "u8", uint8_t)    \
  X(kI32, int32_t, "i32", int32_t)  \
  X(kI64, int64_t, "i64", int64_t)

enum class DataType : uint8_t {
#define COHORT_X(enumerator, type, name, accumulator) enumerator,
  COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
};

// Bytes of one element.
constexpr size_t SizeOf(DataType dtype) {
  switch (dtype) {
#define COHORT_X(enumerator, type, name, accumulator) \
  case DataType::enumerator:                          \
    return sizeof(type);
    COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
  }
  return 0;
}

constexpr const char* Name(DataType dtype) {
  switch (dtype) {
#define COHORT_X(enumerator, type, name, accumulator) \
  case DataType::enumerator:                          \
    return name;
    COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
  }
  return "?";
}

inline std::optional<DataType> ParseDataType(absl::string_view text) {
#define COHORT_X(enumerator, type, name, accumulator) \
  if (text == name) return DataType::enumerator;
  COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
  return std::nullopt;
}

// DataTypeOf<float>() == DataType::kF32, and so on for each row of the table.
template <typename T>
constexpr DataType DataTypeOf();
#define COHORT_X(enumerator, type, name, accumulator) \
  template <>                                         \
  constexpr DataType DataTypeOf<type>() {             \
    return DataType::enumerator;                      \
  }
COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X

}  // namespace cohort
