// A stable 64-bit fingerprint of bytes: it tells whether two files are the same,
// and resists accidents, not attacks.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cohort::runtime {

// FNV-1a, which can be continued: Hash(b, Hash(a)) is Hash(ab).
inline constexpr uint64_t kHashStart = 0xCBF29CE484222325u;
constexpr uint64_t HashBytes(absl::string_view bytes, uint64_t hash = kHashStart) {
  for (const char byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001B3u;
  return hash;
}

// 16 hexadecimal digits.
std::string HashToText(uint64_t hash);

// The fingerprint of a file's bytes as text. NotFound where it cannot be opened.
absl::StatusOr<std::string> HashFile(const std::string& path);

}  // namespace cohort::runtime
