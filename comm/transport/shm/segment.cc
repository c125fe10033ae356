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
#include "comm/policy.h"

namespace cohort::comm::shm {
namespace {

// Pages, as everything that is mapped by itself begins at one.
constexpr size_t kPage = 4096;
constexpr size_t Pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
constexpr size_t kLayoutBytes = Pages(sizeof(SegmentLayout));
constexpr size_t kRingBytes = Pages(sizeof(Ring));
constexpr size_t kSegmentBytes = kLayoutBytes + kRingBytes * policy::kMaxMembers;

constexpr off_t RingOffset(int member) {
  return static_cast<off_t>(kLayoutBytes + kRingBytes * static_cast<size_t>(member));
}

absl::Status SystemError(absl::string_view what) {
  return absl::ErrnoToStatus(errno, absl::StrCat("shared memory: ", what));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Segment>> Segment::Create() {
  const int fd = memfd_create("cohort", MFD_CLOEXEC);
  if (fd < 0) return SystemError("memfd_create");
  if (ftruncate(fd, static_cast<off_t>(kSegmentBytes)) != 0) {
    const absl::Status status = SystemError("ftruncate");
    close(fd);
    return status;
  }
  void* memory = mmap(nullptr, kLayoutBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    const absl::Status status = SystemError("mmap");
    close(fd);
    return status;
  }
  auto* layout = static_cast<SegmentLayout*>(memory);
  if (getrandom(&layout->nonce, sizeof(layout->nonce), 0) != sizeof(layout->nonce)) {
    layout->nonce = static_cast<uint64_t>(NowNanos()) ^ static_cast<uint64_t>(getpid()) << 40;
  }
  return std::unique_ptr<Segment>(new Segment(layout, fd));
}

absl::StatusOr<std::unique_ptr<Segment>> Segment::Attach(int pid, int fd, uint64_t nonce) {
  const std::string path = absl::StrCat("/proc/", pid, "/fd/", fd);
  const int own_fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (own_fd < 0) return SystemError(absl::StrCat("open ", path));
  struct stat info = {};
  if (fstat(own_fd, &info) != 0 || info.st_size != static_cast<off_t>(kSegmentBytes)) {
    close(own_fd);
    return absl::UnavailableError(absl::StrCat("shared memory: ", path, " is not the segment of a peer"));
  }
  void* memory = mmap(nullptr, kLayoutBytes, PROT_READ | PROT_WRITE, MAP_SHARED, own_fd, 0);
  if (memory == MAP_FAILED) {
    const absl::Status status = SystemError("mmap");
    close(own_fd);
    return status;
  }
  auto segment = std::unique_ptr<Segment>(new Segment(static_cast<SegmentLayout*>(memory), own_fd));
  if ((*segment)->nonce != nonce) {
    return absl::UnavailableError(absl::StrCat("shared memory: ", path, " belongs to another job"));
  }
  return segment;
}

absl::StatusOr<Ring*> Segment::MapRing(int member) {
  if (member < 0 || member >= policy::kMaxMembers) {
    return absl::ResourceExhaustedError(absl::StrCat("shared memory: member ", member,
                                                     " of a world that has room "
                                                     "for ",
                                                     policy::kMaxMembers, " in its life"));
  }
  void* memory = mmap(nullptr, kRingBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, RingOffset(member));
  if (memory == MAP_FAILED) return SystemError("mmap of a ring");
  return static_cast<Ring*>(memory);
}

void Segment::Unmap(Ring* ring) {
  if (ring != nullptr) munmap(ring, kRingBytes);
}

void Segment::Drop(int member) {
  // Only a matter of memory: where it fails, the ring stays.
  (void)fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, RingOffset(member), kRingBytes);
}

Segment::~Segment() {
  munmap(layout_, kLayoutBytes);
  close(fd_);
}

}  // namespace cohort::comm::shm
