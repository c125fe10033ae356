// Kernels: one block at a time, for every codec and vector level. Used by codec.cc and the tests.
#pragma once

#include <cstddef>
#include <cstdint>

#include "comm/codec/codec.h"
#include "comm/processor.h"

namespace cohort::comm::codec {

// What precedes a block's elements on the wire; codecs of one float have the scale alone.
struct BlockHeader {
  float scale, base;
};

// Encodes a codec's block of floats: its header, and block * bits / 8 bytes. `random`: the counter of the
// block's random numbers, not looked at for rounding to nearest. All levels give the same bits.
struct BlockCounter {
  uint64_t seed;
  uint64_t step;
  uint32_t stream;
  uint32_t block;
};
using EncodeBlock = BlockHeader (*)(const float* values, Rounding rounding, const BlockCounter& random,
                                    std::byte* payload);
// Decodes a block to `values`, or adds it to them.
using DecodeBlock = void (*)(const BlockHeader& header, const std::byte* payload, float* values);

struct Kernels {
  EncodeBlock encode;
  DecodeBlock decode;
  DecodeBlock decode_add;
};

Kernels FindKernels(CodecKind kind, ProcessorLevel level);

}  // namespace cohort::comm::codec
