// Memory that processes of one host share. It is anonymous (memfd): nothing has a name that could be left behind.
#pragma once

#include <sys/types.h>

#include <cstddef>

#include "absl/status/statusor.h"

namespace cohort::comm::transfer {

class SharedMemory {
 public:
  // Of zeros. Untouched pages cost no memory.
  static absl::StatusOr<SharedMemory> Create(size_t bytes);
  // That of a process of this host, which calls it `fd`. UNAVAILABLE where that is something else.
  static absl::StatusOr<SharedMemory> Open(int pid, int fd, size_t bytes);
  SharedMemory(SharedMemory&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  SharedMemory& operator=(SharedMemory&&) = delete;
  ~SharedMemory();

  // A range that begins at a page. It stays when this object goes, until it is unmapped.
  absl::StatusOr<std::byte*> Map(off_t offset, size_t bytes) const;
  static void Unmap(void* memory, size_t bytes);
  // Gives a range back, also where it is mapped: it holds zeros from then on.
  void Discard(off_t offset, size_t bytes) const;

  int fd() const { return fd_; }

 private:
  explicit SharedMemory(int fd) : fd_(fd) {}
  int fd_;
};

// Whole pages for so many bytes.
inline constexpr size_t WholePages(size_t bytes) { return (bytes + 4095) / 4096 * 4096; }

}  // namespace cohort::comm::transfer
