#include "runtime/elastic/snapshot/sum.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "runtime/elastic/snapshot/policy.h"
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace cohort::runtime::elastic {
namespace {

// Four lanes of a hash by folded products (as in Wang Yi's wyhash): both halves of a 128-bit product depend on all bits
// of both factors, one multiplication takes 16 bytes, and the lanes hide its latency.
constexpr size_t kLanes = 4;
constexpr size_t kWords = 2 * kLanes;
constexpr size_t kBlock = kWords * sizeof(uint64_t);
// 2^64 / the golden ratio, and multiples of it: odd, and with as many ones as zeros.
constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;
constexpr uint64_t kSecret[kLanes] = {kOdd, 3 * kOdd, 5 * kOdd, 7 * kOdd};

inline uint64_t Fold(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

struct Lanes {
  uint64_t lane[kLanes];
  Lanes() {
    for (size_t i = 0; i < kLanes; ++i) lane[i] = ~kSecret[i];
  }
  void Add(const uint64_t* words) {
    for (size_t i = 0; i < kLanes; ++i) {
      lane[i] = Fold(words[2 * i] ^ kSecret[i], words[2 * i + 1] ^ lane[i]);
    }
  }
  // The rest, which is less than a block, and the number of all bytes.
  uint64_t End(const void* rest, size_t rest_bytes, size_t count) {
    if (rest_bytes > 0) {
      uint64_t words[kWords] = {};
      std::memcpy(words, rest, rest_bytes);
      Add(words);
    }
    uint64_t sum = count ^ kOdd;
    for (size_t i = 0; i < kLanes; ++i) sum = Fold(sum ^ kSecret[i], lane[i] ^ kOdd) + i;
    return Fold(sum ^ kOdd, ~count);
  }
};

struct NoCopy {
  void operator()(size_t, const uint64_t*) const {}
};

template <typename Copy>
uint64_t Walk(const void* from, size_t count, const Copy& copy) {
  const auto* bytes = static_cast<const std::byte*>(from);
  Lanes lanes;
  size_t at = 0;
  for (; at + kBlock <= count; at += kBlock) {
    uint64_t words[kWords];
    std::memcpy(words, bytes + at, kBlock);
    lanes.Add(words);
    copy(at, words);
  }
  return lanes.End(bytes + at, count - at, count);
}

}  // namespace

uint64_t SumOf(const void* bytes, size_t count) { return Walk(bytes, count, NoCopy()); }

uint64_t CopyAndSum(void* to, const void* from, size_t count, bool stream) {
  auto* out = static_cast<std::byte*>(to);
  const auto* in = static_cast<const std::byte*>(from);
  const size_t whole = count / kBlock * kBlock;
  std::memcpy(out + whole, in + whole, count - whole);
#if defined(__x86_64__)
  if (stream && reinterpret_cast<uintptr_t>(out) % kBlock == 0) {
    const uint64_t sum = Walk(from, count, [out](size_t at, const uint64_t* words) {
      for (size_t i = 0; i < kWords; i += 2) {
        _mm_stream_si128(reinterpret_cast<__m128i*>(out + at) + i / 2,
                         _mm_loadu_si128(reinterpret_cast<const __m128i*>(words + i)));
      }
    });
    _mm_sfence();  // streamed stores are in no order with others, a stamp that follows among them
    return sum;
  }
#endif
  return Walk(from, count, [out](size_t at, const uint64_t* words) { std::memcpy(out + at, words, kBlock); });
}

uint64_t SumOfChunks(absl::Span<const uint64_t> chunks) {
  return SumOf(chunks.data(), chunks.size() * sizeof(uint64_t));
}

uint64_t SumOfPiece(absl::Span<const std::byte> piece) {
  std::vector<uint64_t> chunks;
  for (size_t at = 0; at < piece.size(); at += snapshot_policy::kChunkBytes) {
    chunks.push_back(SumOf(piece.data() + at, std::min(snapshot_policy::kChunkBytes, piece.size() - at)));
  }
  return SumOfChunks(chunks);
}

}  // namespace cohort::runtime::elastic
