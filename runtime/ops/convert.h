// Conversions between element types, one element at a time, with one rounding.
#pragma once

#include <bit>
#include <cmath>
#include <type_traits>

#include "comm/check.h"
#include "comm/data_type.h"

namespace cohort::runtime {

template <typename T>
inline double ToDouble(T value) {
  if constexpr (std::is_arithmetic_v<T>) {
    return static_cast<double>(value);
  } else {
    return static_cast<float>(value);
  }
}

// The nearest float that a later rounding to a shorter type may start from: rounding to odd keeps the second
// rounding from being off by half a unit (Boldo & Melquiond, 2008).
inline float RoundToOdd(double value) {
  const float nearest = static_cast<float>(value);
  const double back = nearest;
  if (back == value || std::isnan(value) || std::isinf(nearest)) return nearest;
  if (std::bit_cast<uint32_t>(nearest) & 1u) return nearest;
  return std::nextafterf(nearest, back < value ? INFINITY : -INFINITY);
}

template <typename T>
inline T FromDouble(double value) {
  if constexpr (std::is_arithmetic_v<T>) {
    return static_cast<T>(value);
  } else {
    return T(RoundToOdd(value));
  }
}

template <typename To, typename From>
inline To Convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_same_v<From, double>) {
    return FromDouble<To>(value);
  } else if constexpr (std::is_arithmetic_v<From>) {
    return To(value);
  } else {
    return To(static_cast<float>(value));
  }
}

// Calls body(T{}) with T the C++ type of `dtype`, one of the float types.
template <typename Body>
inline void WithFloatType(DataType dtype, Body body) {
  switch (dtype) {
    case DataType::kF32:
      return body(float{});
    case DataType::kBF16:
      return body(BFloat16{});
    case DataType::kF16:
      return body(Float16{});
    case DataType::kF64:
      return body(double{});
    default:
      COHORT_CHECK(false, "an operation on floats got %s", Name(dtype));
  }
}

}  // namespace cohort::runtime
