// Kernels: one block at a time, for every codec and vector level. Used by codec.cc and the tests.
#pragma once

#include <cstddef>
#include <cstdint>

#include "comm/codec/codec.h"
#include "comm/policy.h"
#include "comm/processor.h"

namespace cohort::comm::codec {

inline constexpr size_t kBlock = policy::kCodecBlock;

// Encodes kBlock floats: the scale, and kBlock * bits / 8 bytes. `random` is null for rounding to nearest, else the
// counter of the block's random numbers. All levels give the same bits.
struct BlockCounter {
  uint64_t seed;
  uint64_t step;
  uint32_t stream;
  uint32_t block;
};
using EncodeBlock = float (*)(const float* values, const BlockCounter* random, std::byte* payload);
// Decodes kBlock elements to `values`, or adds them to it.
using DecodeBlock = void (*)(float scale, const std::byte* payload, float* values);

struct Kernels {
  EncodeBlock encode;
  DecodeBlock decode;
  DecodeBlock decode_add;
};

Kernels FindKernels(CodecKind kind, ProcessorLevel level);

}  // namespace cohort::comm::codec
