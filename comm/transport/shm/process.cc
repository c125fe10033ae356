#include "comm/transport/shm/process.h"

#include <errno.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::comm::shm {

namespace {

// The fields of its stat from the third on, behind the command, which is in parentheses and may hold anything.
absl::StatusOr<std::string> StatFields(int pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string line;
  if (!std::getline(file, line)) return absl::UnavailableError(absl::StrCat("no process ", pid));
  const size_t command_end = line.rfind(')');
  if (command_end == std::string::npos) return absl::UnavailableError("/proc is not as expected");
  return line.substr(command_end + 1);
}

}  // namespace

absl::StatusOr<uint64_t> StartTime(int pid) {
  COHORT_ASSIGN_OR_RETURN(const std::string stat, StatFields(pid));
  std::istringstream fields(stat);
  std::string skipped;
  for (int i = 3; i < 22; ++i) fields >> skipped;
  uint64_t start = 0;
  if (!(fields >> start)) return absl::UnavailableError("/proc is not as expected");
  return start;
}

absl::StatusOr<Process> Process::Open(int pid, uint64_t start_time) {
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (pidfd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("pidfd_open of process ", pid));
  Process process(pid, pidfd);
  const absl::StatusOr<uint64_t> start = StartTime(pid);
  if (!start.ok() || *start != start_time) {
    return absl::UnavailableError(absl::StrCat("process ", pid, " is gone"));
  }
  return process;
}

Process::~Process() {
  if (pidfd_ >= 0) close(pidfd_);
}

bool Process::Alive() const {
  pollfd entry{pidfd_, POLLIN, 0};
  return poll(&entry, 1, 0) == 0;
}

bool Process::Stopped() const {
  const absl::StatusOr<std::string> stat = StatFields(pid_);
  return stat.ok() && stat->find_first_not_of(' ') != std::string::npos &&
         (*stat)[stat->find_first_not_of(' ')] == 'T';
}

absl::Status Process::Read(uint64_t address, std::byte* to, size_t bytes) const {
  if (bytes == 0) return absl::OkStatus();
  iovec local{to, bytes};
  iovec remote{reinterpret_cast<void*>(address), bytes};
  return Read(absl::MakeSpan(&remote, 1), absl::MakeSpan(&local, 1));
}

absl::Status Process::Read(absl::Span<iovec> from, absl::Span<iovec> to) const {
  const auto pass = [](absl::Span<iovec>& places, size_t bytes) {
    while (bytes > 0) {
      iovec& place = places.front();
      const size_t part = std::min(bytes, place.iov_len);
      place = {static_cast<std::byte*>(place.iov_base) + part, place.iov_len - part};
      bytes -= part;
      if (place.iov_len == 0) places.remove_prefix(1);
    }
  };
  while (!from.empty()) {
    const ssize_t got = process_vm_readv(pid_, to.data(), to.size(), from.data(), from.size(), 0);
    if (got < 0) {
      if (errno == EPERM || errno == ENOSYS) {
        return absl::PermissionDeniedError("process_vm_readv is not permitted");
      }
      if (errno == ESRCH) return absl::UnavailableError(absl::StrCat("process ", pid_, " is gone"));
      return absl::ErrnoToStatus(errno, absl::StrCat("process_vm_readv from process ", pid_));
    }
    pass(from, static_cast<size_t>(got));
    pass(to, static_cast<size_t>(got));
  }
  return absl::OkStatus();
}

void AllowReaders() { prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); }

}  // namespace cohort::comm::shm
