#include "runtime/tokenizer/file_hash.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace cohort::runtime {

std::string HashToText(uint64_t hash) { return absl::StrFormat("%016x", hash); }

absl::StatusOr<std::string> HashFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot open ", path, ": ", std::strerror(errno)));
  std::vector<char> buffer(1 << 16);
  uint64_t hash = kHashStart;
  while (file) {
    file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    hash = HashBytes(absl::string_view(buffer.data(), static_cast<size_t>(file.gcount())), hash);
  }
  if (file.bad()) return absl::DataLossError(absl::StrCat("cannot read ", path));
  return HashToText(hash);
}

}  // namespace cohort::runtime
