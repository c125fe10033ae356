#include "runtime/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::runtime {

absl::Status ErrnoStatus(int error, absl::string_view what, absl::string_view path) {
  const std::string message = absl::StrCat("cannot ", what, " ", path, ": ", std::strerror(error));
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::ResourceExhaustedError(absl::StrCat(message, "; make room or choose another folder"));
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat(message, "; give user ", geteuid(), " the right to it, or choose another"));
    case EROFS:
      return absl::PermissionDeniedError(
          absl::StrCat(message, "; mount it writable, or choose another folder"));
    case EEXIST:
      return absl::AlreadyExistsError(message);
    default:
      return absl::UnavailableError(message);
  }
}

absl::StatusOr<OutputFile> OutputFile::Open(const std::string& path, int flags) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);
  if (fd < 0) return ErrnoStatus(errno, "open", path);
  return OutputFile(path, fd);
}

absl::StatusOr<OutputFile> OutputFile::Create(const std::string& path) { return Open(path, O_TRUNC); }
absl::StatusOr<OutputFile> OutputFile::Append(const std::string& path) { return Open(path, O_APPEND); }

absl::StatusOr<OutputFile> OutputFile::OpenExisting(const std::string& path) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "open", path);
  return OutputFile(path, fd);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  return *this;
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) close(fd_);
}

absl::Status OutputFile::Write(const void* data, size_t bytes) {
  COHORT_CHECK(fd_ >= 0, "a write to the closed file %s", path_.c_str());
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = write(fd_, at, bytes);
    if (written < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "write", path_);
    }
    at += written;
    bytes -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::Status OutputFile::WriteWhole(absl::string_view text) {
  struct stat before;
  const bool regular = fstat(fd_, &before) == 0 && S_ISREG(before.st_mode);
  const absl::Status status = Write(text);
  if (!status.ok() && regular && ftruncate(fd_, before.st_size) != 0) {
    return absl::Status(status.code(), absl::StrCat(status.message(), " (and a piece of it is left there)"));
  }
  return status;
}

absl::Status OutputFile::WriteAt(uint64_t offset, const void* data, size_t bytes) {
  COHORT_CHECK(fd_ >= 0, "a write to the closed file %s", path_.c_str());
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = pwrite(fd_, at, bytes, static_cast<off_t>(offset));
    if (written < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "write", path_);
    }
    at += written;
    offset += static_cast<uint64_t>(written);
    bytes -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::Status OutputFile::Reserve(uint64_t bytes) {
  const auto length = static_cast<off_t>(bytes);
  int result = 0;
  if (bytes > 0) {
    do result = fallocate(fd_, 0, 0, length);
    while (result != 0 && errno == EINTR);
  }
  // Not every file system can; there WriteAt finds out.
  if (bytes == 0 || (result != 0 && (errno == EOPNOTSUPP || errno == ENOSYS)))
    result = ftruncate(fd_, length);
  if (result != 0) return ErrnoStatus(errno, "write", path_);
  return absl::OkStatus();
}

absl::Status OutputFile::Sync() {
  // EINVAL: a pipe or a device, which has nothing to sync.
  if (fsync(fd_) != 0 && errno != EINVAL) return ErrnoStatus(errno, "sync", path_);
  return absl::OkStatus();
}

absl::Status OutputFile::Close() {
  const int fd = std::exchange(fd_, -1);
  if (fd >= 0 && close(fd) != 0) return ErrnoStatus(errno, "close", path_);
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "open", path);
  std::string text;
  char buffer[65536];
  for (;;) {
    const ssize_t got = read(fd, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const absl::Status status = ErrnoStatus(errno, "read", path);
      close(fd);
      return status;
    }
    if (got == 0) break;
    text.append(buffer, static_cast<size_t>(got));
  }
  close(fd);
  return text;
}

absl::Status WriteFileDurably(const std::string& path, absl::string_view text) {
  COHORT_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(path));
  COHORT_RETURN_IF_ERROR(file.Write(text));
  COHORT_RETURN_IF_ERROR(file.Sync());
  return file.Close();
}

absl::Status MakeFolderOf(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) return ErrnoStatus(error.value(), "make the folder", folder.string());
  return absl::OkStatus();
}

absl::Status SyncFolder(const std::string& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "open the folder", folder);
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  if (result != 0 && error != EINVAL) return ErrnoStatus(error, "sync the folder", folder);
  return absl::OkStatus();
}

}  // namespace cohort::runtime
