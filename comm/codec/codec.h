// Codecs: floats as few bits on the wire, in blocks with a scale of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "comm/codec/policy.h"
#include "comm/data_type.h"

namespace cohort::comm {

// X(enumerator, name, bits of an element, elements of a block, floats before them, codes of a block's extent,
// largest error of nearest rounding as a part of the block's largest magnitude, description). Before the
// elements lies the scale, and with two floats what code zero stands for. Codes reach from minus to plus the
// extent, or from 0 to it.
#define COHORT_CODECS(X)                                                                                \
  X(kInt8, "int8", 8, policy::kCodecBlock, 1, 127, 0.5 / 127, "whole multiples -127..127 of the scale") \
  X(kInt4, "int4", 4, policy::kCodecBlock, 1, 7, 0.5 / 7, "whole multiples -7..7 of the scale")         \
  X(kFp8, "fp8", 8, policy::kCodecBlock, 1, 448, 16.0 / 448,                                            \
    "multiples by e4m3 floats: small values of a block keep their digits")                              \
  X(kMinMax8, "minmax8", 8, policy::kCodecBucket, 2, 255, 1.0 / 255,                                    \
    "256 even steps from the smallest to the largest value (QSDP)")

enum class CodecKind : uint8_t {
#define COHORT_X(enumerator, name, bits, block, header, extent, error, description) enumerator,
  COHORT_CODECS(COHORT_X)
#undef COHORT_X
};

enum class Rounding : uint8_t {
  kNearest,     // to even
  kStochastic,  // up or down at random, such that the mean is the value; 16 random bits an element
  // To the nearest point of the block's lattice after all of it was shifted by one random number of up to
  // half a step either way. The mean is the value too, errors are at most half a step, and a block draws
  // once. For weights (QSDP, Markov et al., 2023). Only where the wire has room for the shift:
  // Codec::shifts().
  kShift,
};

// How one operation encodes. What is drawn at random is a function of (seed, step, stream, index) and of
// nothing else: the same on any processor, in any order.
struct Encoding {
  Rounding rounding = Rounding::kNearest;
  uint64_t seed = 0;
  uint64_t step = 0;    // below 2^48; another one for each call, or their errors repeat
  uint32_t stream = 0;  // tells apart who encodes
};

// One row of the table. The encoded form of `count` elements is, block by block, its f32 header and the
// elements' bits; a last block that is not full is as short as its elements. A block with a NaN or an
// infinity comes out as all NaN. Where the largest magnitude M of a block is at least 2^-100, errors are at
// most max_error * M (nearest, shift) or twice as much (stochastic); below, 2^-140 is added for what f32
// cannot hold. A block whose M is above half of what f32 holds is not shifted.
struct Codec {
  CodecKind kind;
  const char* name;
  const char* description;
  int bits;
  size_t block;  // elements; divides policy::kCodecBucket
  size_t header_floats;
  double max_error;

  bool shifts() const { return header_floats > 1; }

  size_t EncodedBytes(size_t count) const;

  // `source` holds `count` elements of f32 or bf16; `first` is the index of the first one among those that the stream
  // encodes in this step, a multiple of the block. Where `residual` is not null, its elements are added to the source
  // before, and become what encoding has lost (zero where a block is not finite).
  void Encode(const Encoding& encoding, const void* source, DataType dtype, size_t count, size_t first,
              float* residual, std::byte* wire) const;
  // To f32 or bf16.
  void Decode(const std::byte* wire, size_t count, void* destination, DataType dtype) const;
  // destination[i] += decoded[i]
  void DecodeAdd(const std::byte* wire, size_t count, float* destination) const;
};

// Every codec, by kind. Tests, options and benchmarks iterate over it.
absl::Span<const Codec> Codecs();
const Codec& GetCodec(CodecKind kind);
const Codec* FindCodec(absl::string_view name);

}  // namespace cohort::comm
