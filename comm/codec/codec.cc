#include "comm/codec/codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "comm/check.h"
#include "comm/codec/kernels.h"
#include "comm/codec/policy.h"

namespace cohort::comm {
namespace {

using codec::BlockHeader;

constexpr size_t kLargestBlock = policy::kCodecBucket;

constexpr Codec kCodecs[] = {
#define COHORT_X(enumerator, name, bits, block, header, extent, error, description) \
  {CodecKind::enumerator, name, description, bits, block, header, error},
    COHORT_CODECS(COHORT_X)
#undef COHORT_X
};

size_t HeaderBytes(const Codec& codec) { return codec.header_floats * sizeof(float); }

const codec::Kernels& KernelsOf(CodecKind kind) {
  static const auto table = [] {
    std::array<codec::Kernels, std::size(kCodecs)> kernels;
    for (const Codec& row : kCodecs) {
      kernels[static_cast<size_t>(row.kind)] = codec::FindKernels(row.kind, GetProcessorLevel());
    }
    return kernels;
  }();
  return table[static_cast<size_t>(kind)];
}

size_t PayloadBytes(const Codec& codec, size_t count) {
  return (count * static_cast<size_t>(codec.bits) + 7) / 8;
}

void Widen(const BFloat16* from, size_t count, float* to) {
  for (size_t i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]);
}

// A block that is not full: element i of the first `half` shares a byte with element half + i. Only 4-bit codecs
// are laid out otherwise than a full block's begin.
void Squeeze(const Codec& codec, const std::byte* full, size_t count, std::byte* wire) {
  const size_t bytes = PayloadBytes(codec, count), half = codec.block / 2;
  if (codec.bits == 8) {
    std::memcpy(wire, full, bytes);
    return;
  }
  const auto nibble = [&](size_t i) {
    const auto byte = static_cast<uint8_t>(full[i % half]);
    return i < half ? byte & 0xf : byte >> 4;
  };
  for (size_t i = 0; i < bytes; ++i) {
    const int high = bytes + i < count ? nibble(bytes + i) : 0;
    wire[i] = static_cast<std::byte>(nibble(i) | high << 4);
  }
}

void Spread(const Codec& codec, const std::byte* wire, size_t count, std::byte* full) {
  const size_t bytes = PayloadBytes(codec, count), half = codec.block / 2;
  std::memset(full, 0, PayloadBytes(codec, codec.block));
  if (codec.bits == 8) {
    std::memcpy(full, wire, bytes);
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    const auto byte = static_cast<uint8_t>(wire[i % bytes]);
    const int value = i < bytes ? byte & 0xf : byte >> 4;
    std::byte& out = full[i % half];
    out |= static_cast<std::byte>(i < half ? value : value << 4);
  }
}

}  // namespace

absl::Span<const Codec> Codecs() { return kCodecs; }

const Codec& GetCodec(CodecKind kind) { return kCodecs[static_cast<size_t>(kind)]; }

const Codec* FindCodec(absl::string_view name) {
  for (const Codec& codec : kCodecs) {
    if (name == codec.name) return &codec;
  }
  return nullptr;
}

size_t Codec::EncodedBytes(size_t count) const {
  const size_t blocks = (count + block - 1) / block;
  return blocks * HeaderBytes(*this) + count / block * PayloadBytes(*this, block) +
         PayloadBytes(*this, count % block);
}

void Codec::Encode(const Encoding& encoding, const void* source, DataType dtype, size_t count, size_t first,
                   float* residual, std::byte* wire) const {
  COHORT_CHECK(dtype == DataType::kF32 || dtype == DataType::kBF16, "a codec of %s", Name(dtype));
  COHORT_CHECK(first % block == 0, "element %zu is inside a block", first);
  COHORT_CHECK(encoding.rounding != Rounding::kShift || shifts(), "%s has no room for a shift", name);
  const codec::Kernels& kernels = KernelsOf(kind);
  const size_t header_bytes = HeaderBytes(*this), block_bytes = header_bytes + PayloadBytes(*this, block);
  codec::BlockCounter counter{encoding.seed, encoding.step, encoding.stream,
                              static_cast<uint32_t>(first / block)};
  for (size_t at = 0; at < count; at += block, wire += block_bytes, ++counter.block) {
    const size_t n = std::min(block, count - at);
    float held[kLargestBlock];
    const float* values = held;
    if (dtype == DataType::kBF16) {
      Widen(static_cast<const BFloat16*>(source) + at, n, held);
    } else if (n < block || residual != nullptr) {
      std::memcpy(held, static_cast<const float*>(source) + at, n * sizeof(float));
    } else {
      values = static_cast<const float*>(source) + at;
    }
    if (residual != nullptr) {
      for (size_t i = 0; i < n; ++i) held[i] += residual[at + i];
    }
    if (n < block) std::fill(held + n, held + block, held[0]);  // does not change the block's extremes
    std::byte full[kLargestBlock];
    std::byte* payload = n == block ? wire + header_bytes : full;
    const BlockHeader header = kernels.encode(values, encoding.rounding, counter, payload);
    std::memcpy(wire, &header, header_bytes);
    if (residual != nullptr) {
      float decoded[kLargestBlock];
      kernels.decode(header, payload, decoded);
      const bool finite = std::isfinite(header.scale);
      for (size_t i = 0; i < n; ++i) residual[at + i] = finite ? values[i] - decoded[i] : 0.0f;
    }
    if (n < block) Squeeze(*this, full, n, wire + header_bytes);
  }
}

void Codec::Decode(const std::byte* wire, size_t count, void* destination, DataType dtype) const {
  COHORT_CHECK(dtype == DataType::kF32 || dtype == DataType::kBF16, "a codec of %s", Name(dtype));
  const codec::Kernels& kernels = KernelsOf(kind);
  const size_t header_bytes = HeaderBytes(*this), block_bytes = header_bytes + PayloadBytes(*this, block);
  for (size_t at = 0; at < count; at += block, wire += block_bytes) {
    const size_t n = std::min(block, count - at);
    BlockHeader header = {};
    std::memcpy(&header, wire, header_bytes);
    float held[kLargestBlock];
    std::byte full[kLargestBlock];
    const std::byte* payload = wire + header_bytes;
    if (n < block) {
      Spread(*this, payload, n, full);
      payload = full;
    }
    const bool direct = n == block && dtype == DataType::kF32;
    float* values = direct ? static_cast<float*>(destination) + at : held;
    kernels.decode(header, payload, values);
    if (direct) continue;
    if (dtype == DataType::kF32) {
      std::memcpy(static_cast<float*>(destination) + at, held, n * sizeof(float));
    } else {
      auto* out = static_cast<BFloat16*>(destination) + at;
      for (size_t i = 0; i < n; ++i) out[i] = BFloat16(held[i]);
    }
  }
}

void Codec::DecodeAdd(const std::byte* wire, size_t count, float* destination) const {
  const codec::Kernels& kernels = KernelsOf(kind);
  const size_t full = count / block * block;
  const size_t header_bytes = HeaderBytes(*this), block_bytes = header_bytes + PayloadBytes(*this, block);
  for (size_t at = 0; at < full; at += block, wire += block_bytes) {
    BlockHeader header = {};
    std::memcpy(&header, wire, header_bytes);
    kernels.decode_add(header, wire + header_bytes, destination + at);
  }
  if (full == count) return;
  float held[kLargestBlock];
  Decode(wire, count - full, held, DataType::kF32);
  for (size_t i = full; i < count; ++i) destination[i] += held[i - full];
}

}  // namespace cohort::comm
