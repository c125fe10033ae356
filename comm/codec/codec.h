// Codecs: floats as few bits on the wire. Blocks of policy::kCodecBlock elements, each with a scale of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "comm/data_type.h"

namespace cohort::comm {

// X(enumerator, name, bits of an element, largest encoded magnitude, largest error of nearest rounding as a part of the
// block's largest magnitude, description).
#define COHORT_CODECS(X)                                                        \
  X(kInt8, "int8", 8, 127, 0.5 / 127, "whole multiples -127..127 of the scale") \
  X(kInt4, "int4", 4, 7, 0.5 / 7, "whole multiples -7..7 of the scale")         \
  X(kFp8, "fp8", 8, 448, 16.0 / 448, "multiples by e4m3 floats: small values of a block keep their digits")

enum class CodecKind : uint8_t {
#define COHORT_X(enumerator, name, bits, largest, error, description) enumerator,
  COHORT_CODECS(COHORT_X)
#undef COHORT_X
};

enum class Rounding : uint8_t {
  kNearest,     // to even
  kStochastic,  // up or down at random, such that the mean is the value; 16 random bits an element
};

// How one operation encodes. What is drawn at random is a function of (seed, step, stream, index) and of
// nothing else: the same on any processor, in any order.
struct Encoding {
  Rounding rounding = Rounding::kNearest;
  uint64_t seed = 0;
  uint64_t step = 0;    // below 2^48; another one for each call, or their errors repeat
  uint32_t stream = 0;  // tells apart who encodes
};

// One row of the table. The encoded form of `count` elements is, block by block, a f32 scale and the elements' bits; a
// last block that is not full is as short as its elements. A block with a NaN or an infinity comes out as all NaN.
// Where the largest magnitude M of a block is at least 2^-100, errors are at most max_error * M (nearest) or twice as
// much (stochastic); below, 2^-140 is added for what f32 cannot hold.
struct Codec {
  CodecKind kind;
  const char* name;
  const char* description;
  int bits;
  double max_error;

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
