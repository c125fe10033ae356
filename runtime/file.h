// Files written so that a full disk, a kill or a power loss never goes unnoticed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cohort::runtime {

// "cannot <what> <path>: <reason>" with the code that errno says: RESOURCE_EXHAUSTED for a full disk, a quota
// or a file size limit; NOT_FOUND, PERMISSION_DENIED, ...
absl::Status ErrnoStatus(int error, absl::string_view what, absl::string_view path);

// A file open for writing. Not thread-safe. Dropped without Close: closed without a check.
class OutputFile {
 public:
  // Truncates what is there.
  static absl::StatusOr<OutputFile> Create(const std::string& path);
  // Adds to what is there. Each Write of at most some kilobytes lands in one piece.
  static absl::StatusOr<OutputFile> Append(const std::string& path);
  // What is there already, for writes at places of it; several processes may do so at once. NOT_FOUND where it is not.
  static absl::StatusOr<OutputFile> OpenExisting(const std::string& path);

  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) noexcept;
  ~OutputFile();

  // All of it or an error.
  absl::Status Write(const void* data, size_t bytes);
  absl::Status Write(absl::string_view text) { return Write(text.data(), text.size()); }
  // All of it, or an error and nothing: what a full disk let through is taken back. For
  // a file opened by Append.
  absl::Status WriteWhole(absl::string_view text);
  // All of it at this place, or an error. Moves nothing else.
  absl::Status WriteAt(uint64_t offset, const void* data, size_t bytes);
  // Makes the file so long, and has the disk set the room aside where the file system can: RESOURCE_EXHAUSTED now
  // rather than in a later WriteAt.
  absl::Status Reserve(uint64_t bytes);
  // On the disk when it returns OK.
  absl::Status Sync();
  absl::Status Close();

  const std::string& path() const { return path_; }

 private:
  static absl::StatusOr<OutputFile> Open(const std::string& path, int flags);
  OutputFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::string path_;
  int fd_ = -1;
};

// The whole file.
absl::StatusOr<std::string> ReadFile(const std::string& path);
// Creates or replaces the file; it is on the disk when this returns OK. Not atomic.
absl::Status WriteFileDurably(const std::string& path, absl::string_view text);
// Makes the folder that a file of this path lies in, and those above it.
absl::Status MakeFolderOf(const std::string& path);
// Makes the names in a folder (creations, renames, removals) survive a power loss.
absl::Status SyncFolder(const std::string& folder);

}  // namespace cohort::runtime
