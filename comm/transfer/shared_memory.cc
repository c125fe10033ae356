#include "comm/transfer/shared_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace cohort::comm::transfer {
namespace {

absl::Status SystemError(absl::string_view what) {
  return absl::ErrnoToStatus(errno, absl::StrCat("shared memory: ", what));
}

}  // namespace

absl::StatusOr<SharedMemory> SharedMemory::Create(size_t bytes) {
  SharedMemory memory(memfd_create("cohort-transfer", MFD_CLOEXEC));
  if (memory.fd_ < 0) return SystemError("memfd_create");
  if (ftruncate(memory.fd_, static_cast<off_t>(bytes)) != 0)
    return SystemError(absl::StrCat("ftruncate to ", bytes, " bytes"));
  return memory;
}

absl::StatusOr<SharedMemory> SharedMemory::Open(int pid, int fd, size_t bytes) {
  const std::string path = absl::StrCat("/proc/", pid, "/fd/", fd);
  SharedMemory memory(open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (memory.fd_ < 0) return SystemError(absl::StrCat("open ", path));
  struct stat info = {};
  if (fstat(memory.fd_, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size != static_cast<off_t>(bytes))
    return absl::UnavailableError(absl::StrCat("shared memory: ", path, " is not what its owner has named"));
  return memory;
}

SharedMemory::~SharedMemory() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<std::byte*> SharedMemory::Map(off_t offset, size_t bytes) const {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, offset);
  if (memory == MAP_FAILED) return SystemError(absl::StrCat("mmap of ", bytes, " bytes"));
  return static_cast<std::byte*>(memory);
}

void SharedMemory::Unmap(void* memory, size_t bytes) {
  if (memory != nullptr) munmap(memory, bytes);
}

void SharedMemory::Discard(off_t offset, size_t bytes) const {
  // Only a matter of memory: where it fails, it stays.
  (void)fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, static_cast<off_t>(bytes));
}

}  // namespace cohort::comm::transfer
