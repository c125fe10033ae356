#include "runtime/elastic/snapshot/sum.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "runtime/elastic/snapshot/policy.h"
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace cohort::runtime::elastic {
namespace {

// Every step of a lane is a bijection of what came before and of the word, so that no single difference is lost; eight
// lanes hide the latency of the multiplication. The rotation brings high bits back to where they multiply.
constexpr size_t kLanes = 8;
constexpr size_t kBlock = kLanes * sizeof(uint64_t);
constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;  // 2^64 / the golden ratio
constexpr uint64_t Step(uint64_t lane, uint64_t word) { return std::rotl((lane ^ word) * kOdd, 29); }

struct Lanes {
  uint64_t lane[kLanes];
  Lanes() {
    for (size_t i = 0; i < kLanes; ++i) lane[i] = (i + 1) * kOdd;
  }
  void Add(const uint64_t* words) {
    for (size_t i = 0; i < kLanes; ++i) lane[i] = Step(lane[i], words[i]);
  }
  // The rest, which is less than a block, and the number of all bytes.
  uint64_t End(const void* rest, size_t rest_bytes, size_t count) {
    if (rest_bytes > 0) {
      uint64_t words[kLanes] = {};
      std::memcpy(words, rest, rest_bytes);
      Add(words);
    }
    uint64_t sum = Step(count, kOdd);
    for (const uint64_t one : lane) sum = Step(sum, one);
    sum = (sum ^ (sum >> 32)) * kOdd;
    return sum ^ (sum >> 29);
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
    uint64_t words[kLanes];
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
      for (size_t i = 0; i < kLanes; i += 2) {
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
