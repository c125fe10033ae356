#include "comm/transport/shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace cohort::comm::shm {
namespace {

size_t SegmentBytes(int num_ranks) {
  return sizeof(SegmentLayout) + sizeof(Ring) * static_cast<size_t>(num_ranks);
}

absl::Status SystemError(absl::string_view what) {
  return absl::ErrnoToStatus(errno, absl::StrCat("shared memory: ", what));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Segment>> Segment::Create(int num_ranks) {
  const int fd = memfd_create("cohort", MFD_CLOEXEC);
  if (fd < 0) return SystemError("memfd_create");
  const size_t bytes = SegmentBytes(num_ranks);
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    const absl::Status status = SystemError("ftruncate");
    close(fd);
    return status;
  }
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    const absl::Status status = SystemError("mmap");
    close(fd);
    return status;
  }
  auto* layout = static_cast<SegmentLayout*>(memory);
  layout->num_rings = static_cast<uint64_t>(num_ranks);
  if (getrandom(&layout->nonce, sizeof(layout->nonce), 0) != sizeof(layout->nonce)) {
    layout->nonce = static_cast<uint64_t>(NowNanos()) ^ static_cast<uint64_t>(getpid()) << 40;
  }
  return std::unique_ptr<Segment>(new Segment(layout, bytes, fd));
}

absl::StatusOr<std::unique_ptr<Segment>> Segment::Attach(int pid, int fd, uint64_t nonce, int num_ranks) {
  const std::string path = absl::StrCat("/proc/", pid, "/fd/", fd);
  const int own_fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (own_fd < 0) return SystemError(absl::StrCat("open ", path));
  const size_t bytes = SegmentBytes(num_ranks);
  struct stat info = {};
  if (fstat(own_fd, &info) != 0 || info.st_size != static_cast<off_t>(bytes)) {
    close(own_fd);
    return absl::UnavailableError(absl::StrCat("shared memory: ", path, " is not the segment of a peer"));
  }
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, own_fd, 0);
  const absl::Status mapped = memory == MAP_FAILED ? SystemError("mmap") : absl::OkStatus();
  close(own_fd);
  if (!mapped.ok()) return mapped;
  auto segment = std::unique_ptr<Segment>(new Segment(static_cast<SegmentLayout*>(memory), bytes, -1));
  if ((*segment)->nonce != nonce) {
    return absl::UnavailableError(absl::StrCat("shared memory: ", path, " belongs to another job"));
  }
  return segment;
}

Segment::~Segment() {
  munmap(layout_, bytes_);
  if (fd_ >= 0) close(fd_);
}

}  // namespace cohort::comm::shm
