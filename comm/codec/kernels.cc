// Compiled without contraction of a*b+c, so that all levels round alike.
#include "comm/codec/kernels.h"

#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>

#include "comm/codec/policy.h"
#include "comm/philox.h"

namespace cohort::comm::codec {
namespace {

constexpr uint32_t kMagnitude = 0x7fffffffu;
constexpr uint32_t kInfinity = 0x7f800000u;
// Adding it to a float below 2^22 rounds it to a whole number, to even, which then are the sum's low bits.
constexpr float kRounder = 0x1.8p23f;

struct Numbers {
  PhiloxKey key;
  uint32_t stream, step, purpose;

  COHORT_INLINE explicit Numbers(const BlockCounter& at)
      : key{static_cast<uint32_t>(at.seed), static_cast<uint32_t>(at.seed >> 32)},
        stream(at.stream),
        step(static_cast<uint32_t>(at.step)),
        purpose(static_cast<uint32_t>(kRoundingPurpose) << 16 |
                (static_cast<uint32_t>(at.step >> 32) & 0xffffu)) {}
  COHORT_INLINE PhiloxCounter At(uint32_t call) const {
    return Philox4x32({call, stream, step, purpose}, key);
  }
};

// Sixteen random bits for each element, four words a counter. An element's words are a fixed place in the block.
template <size_t kBlock>
COHORT_INLINE void Draw(const BlockCounter& at, uint16_t* random) {
  constexpr uint32_t kCalls = kBlock / 8;
  const Numbers numbers(at);
  uint32_t words[4][kCalls];
  for (uint32_t call = 0; call < kCalls; ++call) {
    const PhiloxCounter drawn = numbers.At(at.block * kCalls + call);
    for (int word = 0; word < 4; ++word) words[word][call] = drawn[word];
  }
  std::memcpy(random, words, sizeof(words));
}

template <size_t kBlock>
COHORT_INLINE uint32_t LargestBits(const float* values) {
  uint32_t largest = 0;
  for (size_t i = 0; i < kBlock; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(values[i]) & kMagnitude;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

// Uniform in (-1/2, 1/2), symmetric round zero.
COHORT_INLINE float Dither(uint16_t random) {
  return static_cast<float>(static_cast<int32_t>(random) - 32768) * 0x1p-16f + 0x1p-17f;
}

template <int largest, bool stochastic>
COHORT_INLINE uint32_t QuantizeWhole(float value, const uint16_t* random) {
  constexpr auto kLimit = static_cast<float>(largest);
  float scaled = value;
  if constexpr (stochastic) scaled += Dither(*random);
  scaled = scaled < kLimit ? scaled : kLimit;
  scaled = scaled > -kLimit ? scaled : -kLimit;
  return std::bit_cast<uint32_t>(scaled + kRounder) - std::bit_cast<uint32_t>(kRounder);
}

struct Int8 {
  static constexpr size_t kBlock = policy::kCodecBlock;
  static constexpr float kLargest = 127;
  static constexpr size_t kBytes = kBlock;
  template <bool stochastic>
  static COHORT_INLINE void Store(const float* __restrict values, float factor,
                                  const uint16_t* __restrict random, uint8_t* __restrict out) {
    for (size_t i = 0; i < kBlock; ++i) {
      out[i] = static_cast<uint8_t>(QuantizeWhole<127, stochastic>(values[i] * factor, random + i));
    }
  }
  template <bool add>
  static COHORT_INLINE void Load(const BlockHeader& header, const uint8_t* __restrict in,
                                 float* __restrict values) {
    const float scale = header.scale;
    for (size_t i = 0; i < kBlock; ++i) {
      const float value = static_cast<float>(static_cast<int8_t>(in[i])) * scale;
      values[i] = add ? values[i] + value : value;
    }
  }
};

// Element i of the first half of a block shares a byte with element i of the second.
struct Int4 {
  static constexpr size_t kBlock = policy::kCodecBlock;
  static constexpr float kLargest = 7;
  static constexpr size_t kBytes = kBlock / 2;
  template <bool stochastic>
  static COHORT_INLINE void Store(const float* __restrict values, float factor,
                                  const uint16_t* __restrict random, uint8_t* __restrict out) {
    constexpr size_t kHalf = kBlock / 2;
    for (size_t i = 0; i < kHalf; ++i) {
      const uint32_t low = QuantizeWhole<7, stochastic>(values[i] * factor, random + i);
      const uint32_t high = QuantizeWhole<7, stochastic>(values[i + kHalf] * factor, random + i + kHalf);
      out[i] = static_cast<uint8_t>((low & 0xfu) | high << 4);
    }
  }
  template <bool add>
  static COHORT_INLINE void Load(const BlockHeader& header, const uint8_t* __restrict in,
                                 float* __restrict values) {
    const float scale = header.scale;
    constexpr size_t kHalf = kBlock / 2;
    for (size_t i = 0; i < kHalf; ++i) {
      const float value = static_cast<float>((static_cast<int32_t>(in[i] & 0xf) ^ 8) - 8) * scale;
      values[i] = add ? values[i] + value : value;
    }
    for (size_t i = 0; i < kHalf; ++i) {
      const float value = static_cast<float>((static_cast<int32_t>(in[i] >> 4) ^ 8) - 8) * scale;
      values[i + kHalf] = add ? values[i + kHalf] + value : value;
    }
  }
};

// e4m3 of the OCP 8-bit floating point specification: exponent bias 7, no infinities, largest 448 (0x7e).
struct Fp8 {
  static constexpr size_t kBlock = policy::kCodecBlock;
  static constexpr float kLargest = 448;
  static constexpr size_t kBytes = kBlock;
  template <bool stochastic>
  static COHORT_INLINE void Store(const float* __restrict values, float factor,
                                  const uint16_t* __restrict random, uint8_t* __restrict out) {
    for (size_t i = 0; i < kBlock; ++i) {
      const float scaled = values[i] * factor;
      const uint32_t bits = std::bit_cast<uint32_t>(scaled), magnitude = bits & kMagnitude;
      // From 2^-6 on: cut twenty digits off the float, after adding what carries into the rest.
      uint32_t carry = 0x7ffffu + ((magnitude >> 20) & 1u);
      if constexpr (stochastic) carry = static_cast<uint32_t>(random[i]) << 4 | 8u;
      const uint32_t normal = ((magnitude + carry) >> 20) - ((127u - 7u) << 3);
      // Below: whole multiples of 2^-9.
      float small = std::bit_cast<float>(magnitude) * 0x1p9f;
      small = small < 8.0f ? small : 8.0f;
      if constexpr (stochastic) small += Dither(random[i]);
      const uint32_t subnormal =
          std::bit_cast<uint32_t>(small + kRounder) - std::bit_cast<uint32_t>(kRounder);
      uint32_t code = magnitude >= 0x3c800000u ? normal : subnormal;
      code = code < 0x7eu ? code : 0x7eu;
      out[i] = static_cast<uint8_t>(code | ((bits >> 24) & 0x80u));
    }
  }
  template <bool add>
  static COHORT_INLINE void Load(const BlockHeader& header, const uint8_t* __restrict in,
                                 float* __restrict values) {
    const float scale = header.scale;
    for (size_t i = 0; i < kBlock; ++i) {
      const uint32_t code = in[i] & 0x7fu, sign = (in[i] & 0x80u) << 24;
      const uint32_t normal = (code << 20) + ((127u - 7u) << 23);
      const uint32_t subnormal =
          std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(code)) * 0x1p-9f);
      const float value = std::bit_cast<float>((code >= 8u ? normal : subnormal) | sign) * scale;
      values[i] = add ? values[i] + value : value;
    }
  }
};

constexpr float kMost = std::numeric_limits<float>::max();
// The smallest magnitude whose inverse is finite for sure.
constexpr float kSmallestNormal = 0x1p-126f;
// What smaller ones are multiplied by before they are divided by.
constexpr float kLift = 0x1p64f;

// Of a codec whose header is the scale.
template <typename Format>
COHORT_INLINE BlockHeader EncodeScaled(const float* values, Rounding rounding, const BlockCounter& random,
                                       std::byte* payload) {
  constexpr size_t kBlock = Format::kBlock;
  auto* out = reinterpret_cast<uint8_t*>(payload);
  const uint32_t largest = LargestBits<kBlock>(values);
  if (largest >= kInfinity || largest == 0) {
    for (size_t i = 0; i < Format::kBytes; ++i) out[i] = 0;
    return {largest == 0 ? 0.0f : std::numeric_limits<float>::quiet_NaN(), 0};
  }
  float scale = std::bit_cast<float>(largest) / Format::kLargest;
  // The largest float's scale, rounded up, would come back as an infinity.
  if (scale * Format::kLargest > kMost) {
    scale = std::bit_cast<float>(std::bit_cast<uint32_t>(scale) - 1);
  }
  float lifted[kBlock];
  float factor = 1 / scale;
  if (scale < kSmallestNormal) {
    for (size_t i = 0; i < kBlock; ++i) lifted[i] = values[i] * kLift;
    values = lifted;
    factor = scale > 0 ? 1 / (scale * kLift) : 0;
  }
  uint16_t drawn[kBlock];
  if (rounding == Rounding::kStochastic) {
    Draw<kBlock>(random, drawn);
    Format::template Store<true>(values, factor, drawn, out);
  } else {
    Format::template Store<false>(values, factor, drawn, out);
  }
  return {scale, 0};
}

// Codes 0..255 are base + (code - 127.5) scale; unshifted, the base is the middle of the block.
struct MinMax8 {
  static constexpr size_t kBlock = policy::kCodecBucket;
  static constexpr float kHalf = 127.5f;

  template <bool stochastic>
  static COHORT_INLINE void Store(const float* __restrict values, float middle, float factor, float at_zero,
                                  const uint16_t* __restrict random, uint8_t* __restrict out) {
    for (size_t i = 0; i < kBlock; ++i) {
      float code = (values[i] - middle) * factor + at_zero;
      if constexpr (stochastic) code += Dither(random[i]);
      code = code > 0.0f ? code : 0.0f;
      code = code < 255.0f ? code : 255.0f;
      out[i] = static_cast<uint8_t>(std::bit_cast<uint32_t>(code + kRounder));
    }
  }
  template <bool add>
  static COHORT_INLINE void Load(const BlockHeader& header, const uint8_t* __restrict in,
                                 float* __restrict values) {
    const float scale = header.scale, base = header.base;
    for (size_t i = 0; i < kBlock; ++i) {
      const float value = (static_cast<float>(static_cast<int32_t>(in[i])) - kHalf) * scale + base;
      values[i] = add ? values[i] + value : value;
    }
  }

  static COHORT_INLINE BlockHeader Encode(const float* values, Rounding rounding, const BlockCounter& random,
                                          std::byte* payload) {
    auto* out = reinterpret_cast<uint8_t*>(payload);
    float low = values[0], high = values[0];
    for (size_t i = 0; i < kBlock; ++i) {
      low = values[i] < low ? values[i] : low;
      high = values[i] > high ? values[i] : high;
    }
    const uint32_t largest = LargestBits<kBlock>(values);
    if (largest >= kInfinity) {
      for (size_t i = 0; i < kBlock; ++i) out[i] = 0;
      constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
      return {kNan, kNan};
    }
    // The largest floats have no sum and no difference.
    const bool wide = std::bit_cast<float>(largest) > kMost / 2;
    const float middle = wide ? low * 0.5f + high * 0.5f : (low + high) * 0.5f;
    float scale = wide ? high / 255.0f - low / 255.0f : (high - low) / 255.0f;
    if (kHalf * scale + middle > kMost || middle - kHalf * scale < -kMost) {
      scale = std::bit_cast<float>(std::bit_cast<uint32_t>(scale) - 1);
    }
    float base = middle, at_zero = kHalf, centre = middle;
    if (rounding == Rounding::kShift && !wide) {
      // Uniform in (-1/2, 1/2), of 24 bits.
      const float shift =
          (static_cast<float>(Numbers(random).At(random.block)[0] >> 8) + 0.5f) * 0x1p-24f - 0.5f;
      base = middle + shift * scale;
      at_zero = kHalf - shift;
    }
    float lifted[kBlock];
    float factor = 1 / scale;
    if (scale < kSmallestNormal) {
      for (size_t i = 0; i < kBlock; ++i) lifted[i] = values[i] * kLift;
      values = lifted;
      centre *= kLift;
      factor = scale > 0 ? 1 / (scale * kLift) : 0;
    }
    uint16_t drawn[kBlock];
    if (rounding == Rounding::kStochastic) {
      Draw<kBlock>(random, drawn);
      Store<true>(values, centre, factor, at_zero, drawn, out);
    } else {
      Store<false>(values, centre, factor, at_zero, drawn, out);
    }
    return {scale, base};
  }
};

template <typename Format>
COHORT_INLINE BlockHeader Encode(const float* values, Rounding rounding, const BlockCounter& random,
                                 std::byte* payload) {
  if constexpr (std::is_same_v<Format, MinMax8>)
    return MinMax8::Encode(values, rounding, random, payload);
  else
    return EncodeScaled<Format>(values, rounding, random, payload);
}

#define COHORT_LEVEL(level, attribute)                                                                    \
  template <typename Format>                                                                              \
  attribute BlockHeader Encode##level(const float* values, Rounding rounding, const BlockCounter& random, \
                                      std::byte* payload) {                                               \
    return Encode<Format>(values, rounding, random, payload);                                             \
  }                                                                                                       \
  template <typename Format, bool add>                                                                    \
  attribute void Decode##level(const BlockHeader& header, const std::byte* payload, float* values) {      \
    Format::template Load<add>(header, reinterpret_cast<const uint8_t*>(payload), values);                \
  }

COHORT_LEVEL(Baseline, )
#ifdef __x86_64__
COHORT_LEVEL(Avx2, COHORT_AVX2)
COHORT_LEVEL(Avx512, COHORT_AVX512)
#endif

template <typename Format>
Kernels Choose(ProcessorLevel level) {
#ifdef __x86_64__
  if (level == ProcessorLevel::kAvx512) {
    return {EncodeAvx512<Format>, DecodeAvx512<Format, false>, DecodeAvx512<Format, true>};
  }
  if (level == ProcessorLevel::kAvx2) {
    return {EncodeAvx2<Format>, DecodeAvx2<Format, false>, DecodeAvx2<Format, true>};
  }
#endif
  return {EncodeBaseline<Format>, DecodeBaseline<Format, false>, DecodeBaseline<Format, true>};
}

}  // namespace

Kernels FindKernels(CodecKind kind, ProcessorLevel level) {
  switch (kind) {
    case CodecKind::kInt8:
      return Choose<Int8>(level);
    case CodecKind::kInt4:
      return Choose<Int4>(level);
    case CodecKind::kFp8:
      return Choose<Fp8>(level);
    case CodecKind::kMinMax8:
      return Choose<MinMax8>(level);
  }
  return {};
}

}  // namespace cohort::comm::codec
