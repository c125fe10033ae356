#include "comm/copy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "comm/policy.h"

namespace cohort::comm {

// In blocks where it may: of more bytes than it takes for a core's share of the caches, the C library writes past the
// caches, which takes several times as long where the caches would have held them.
void CopyBytes(std::byte* to, const std::byte* from, size_t bytes) {
  const bool apart = to + bytes <= from || from + bytes <= to;
  const size_t block = apart ? policy::kCopyBlockBytes : bytes;
  for (size_t at = 0; at < bytes; at += block) std::memmove(to + at, from + at, std::min(block, bytes - at));
}

#ifdef __SSE2__
void CopyBytesPastCaches(std::byte* to, const std::byte* from, size_t bytes) {
  constexpr size_t kLine = 64;
  const size_t before = std::min((kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine, bytes);
  const bool apart = to + bytes <= from || from + bytes <= to;
  if (!apart || bytes < before + kLine) return CopyBytes(to, from, bytes);
  std::memcpy(to, from, before);
  size_t at = before;
  for (; at + kLine <= bytes; at += kLine) {
    const auto* source = reinterpret_cast<const __m128i*>(from + at);
    auto* line = reinterpret_cast<__m128i*>(to + at);
    const __m128i a = _mm_loadu_si128(source), b = _mm_loadu_si128(source + 1);
    const __m128i c = _mm_loadu_si128(source + 2), d = _mm_loadu_si128(source + 3);
    _mm_stream_si128(line, a);
    _mm_stream_si128(line + 1, b);
    _mm_stream_si128(line + 2, c);
    _mm_stream_si128(line + 3, d);
  }
  _mm_sfence();
  std::memcpy(to + at, from + at, bytes - at);
}
#else
void CopyBytesPastCaches(std::byte* to, const std::byte* from, size_t bytes) { CopyBytes(to, from, bytes); }
#endif

}  // namespace cohort::comm
