#include "comm/transport/shm/page_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/transport/shm/policy.h"

namespace cohort::comm::shm {
namespace {

size_t PageBytes() {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

}  // namespace

bool PageLender::Open(size_t bytes) {
  if (pipe2(ends_, O_CLOEXEC | O_NONBLOCK) != 0) {
    ends_[0] = ends_[1] = -1;
    return false;
  }
  // Users have a quota of pages in pipes (/proc/sys/fs/pipe-user-pages-soft). Beyond it nothing is granted, and others of
  // this user's programs should have what is left.
  const int granted = fcntl(ends_[1], F_SETPIPE_SZ, static_cast<int>(bytes));
  struct stat info = {};
  if (granted >= static_cast<int>(bytes) && fstat(ends_[0], &info) == 0) {
    inode_ = info.st_ino;
    return true;
  }
  Close();
  return false;
}

void PageLender::Close() {
  for (int& end : ends_) {
    if (end >= 0) close(end);
    end = -1;
  }
}

std::optional<uint32_t> PageLender::Lend(const std::byte* data, size_t bytes) {
  const auto address = reinterpret_cast<uintptr_t>(data);
  size_t lent = 0;
  while (lent < bytes) {
    iovec place{const_cast<std::byte*>(data) + lent, bytes - lent};
    const ssize_t got = vmsplice(ends_[1], &place, 1, SPLICE_F_NONBLOCK);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && lent == 0 && errno != EAGAIN && errno != EFAULT) return std::nullopt;
    if (got <= 0) break;
    lent += static_cast<size_t>(got);
  }
  if (lent == 0) return 0;
  return static_cast<uint32_t>((address + lent - 1) / PageBytes() - address / PageBytes() + 1);
}

size_t LentBytes(uint64_t address, size_t bytes, uint32_t pages) {
  if (pages == 0) return 0;
  return std::min(bytes, pages * PageBytes() - address % PageBytes());
}

PageBorrower::~PageBorrower() {
  if (fd_ >= 0) close(fd_);
  if (nowhere_ >= 0) close(nowhere_);
}

bool PageBorrower::Open(int pid, int fd, uint64_t inode) {
  fd_ = ::open(absl::StrCat("/proc/", pid, "/fd/", fd).c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  nowhere_ = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  struct stat info = {};
  const bool same = fd_ >= 0 && fstat(fd_, &info) == 0 && S_ISFIFO(info.st_mode) && info.st_ino == inode;
  if (!same && fd_ >= 0) close(std::exchange(fd_, -1));
  return same;
}

size_t PageBorrower::Read(uint64_t at, std::byte* to, size_t bytes) {
  SkipTo(at);
  return taken_ == at ? Take(to, bytes) : 0;
}

void PageBorrower::SkipTo(uint64_t at) {
  while (taken_ < at && fd_ >= 0) {
    const ssize_t got = splice(fd_, nullptr, nowhere_, nullptr, at - taken_, SPLICE_F_NONBLOCK);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return;  // its sender has closed it
    taken_ += static_cast<uint64_t>(got);
  }
}

size_t PageBorrower::Take(std::byte* to, size_t bytes) {
  if (fd_ < 0) return 0;
  ssize_t got = 0;
  do {
    got = read(fd_, to, std::min(bytes, policy::kShmBorrowBytes));
  } while (got < 0 && errno == EINTR);
  if (got <= 0) return 0;  // its sender has closed it, or `to` cannot be written
  taken_ += static_cast<uint64_t>(got);
  return static_cast<size_t>(got);
}

}  // namespace cohort::comm::shm
