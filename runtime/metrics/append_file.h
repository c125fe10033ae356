// A file that grows by whole records.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cohort::runtime {

// Movable. Each Append is one write to the end of the file. Not thread-safe.
class AppendFile {
 public:
  // Opens or makes the file, and the folders above it.
  static absl::StatusOr<AppendFile> Open(const std::string& path);
  AppendFile(AppendFile&& other) noexcept : path_(std::move(other.path_)), fd_(other.fd_) { other.fd_ = -1; }
  AppendFile& operator=(AppendFile&&) = delete;
  ~AppendFile();

  // RESOURCE_EXHAUSTED where the disk is full; what was written of the record is taken back.
  absl::Status Append(absl::string_view record);
  const std::string& path() const { return path_; }

 private:
  AppendFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  std::string path_;
  int fd_;
};

}  // namespace cohort::runtime
