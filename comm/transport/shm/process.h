// Another process of this host: whether it lives, and its memory.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace cohort::comm::shm {

// When the process began, in clock ticks since boot: with the pid, a name that is not used again.
absl::StatusOr<uint64_t> StartTime(int pid);

class Process {
 public:
  // Fails where no such process lives.
  static absl::StatusOr<Process> Open(int pid, uint64_t start_time);
  Process(Process&& other) noexcept : pid_(other.pid_), pidfd_(other.pidfd_) { other.pidfd_ = -1; }
  Process& operator=(Process&&) = delete;
  ~Process();

  int pid() const { return pid_; }
  // Also false once it is a zombie.
  bool Alive() const;
  // Stopped by a signal (SIGSTOP, SIGTSTP), until it is continued.
  bool Stopped() const;
  // Copies from its memory. PERMISSION_DENIED where the system does not allow that,
  // UNAVAILABLE where it is gone.
  absl::Status Read(uint64_t address, std::byte* to, size_t bytes) const;
  // The same from several places to several: equal sums of bytes, at most UIO_MAXIOV places each, which are changed.
  absl::Status Read(absl::Span<iovec> from, absl::Span<iovec> to) const;

 private:
  Process(int pid, int pidfd) : pid_(pid), pidfd_(pidfd) {}
  int pid_;
  int pidfd_;
};

// Lets the other processes of this user read this one's memory where Yama asks for that.
void AllowReaders();

}  // namespace cohort::comm::shm
