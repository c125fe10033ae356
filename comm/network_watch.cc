#include "comm/network_watch.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "comm/check.h"
#include "comm/policy.h"

namespace cohort::comm {
namespace {

int EventFd() {
  const int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  COHORT_CHECK(fd >= 0, "no eventfd (%m): are there too many open files?");
  return fd;
}

void Raise(int fd) {
  const uint64_t one = 1;
  (void)!write(fd, &one, sizeof(one));
}

void Lower(int fd) {
  uint64_t count = 0;
  (void)!read(fd, &count, sizeof(count));
}

}  // namespace

NetworkWatch::NetworkWatch(int event_fd, Doorbell* doorbell, Callbacks callbacks)
    : event_fd_(event_fd),
      doorbell_(doorbell),
      callbacks_(std::move(callbacks)),
      sleeper_fd_(EventFd()),
      thread_fd_(EventFd()),
      thread_([this] { Main(); }) {}

NetworkWatch::~NetworkWatch() {
  stop_.store(true, std::memory_order_seq_cst);
  Raise(thread_fd_);
  thread_bell_.Wake();
  thread_.join();
  close(sleeper_fd_);
  close(thread_fd_);
}

bool NetworkWatch::Poll(int wake_fd, int64_t nanos) const {
  pollfd events[] = {{event_fd_, POLLIN, 0}, {wake_fd, POLLIN, 0}};
  const timespec limit = {nanos / 1'000'000'000, nanos % 1'000'000'000};
  return ppoll(events, 2, &limit, nullptr) > 0 && events[0].revents != 0;
}

void NetworkWatch::Sleep(int64_t nanos) {
  if (nanos > 0) Poll(sleeper_fd_, nanos);
}

void NetworkWatch::EndSleep() {
  // The last one lowers the flag: a wake that comes in between ends the next sleep early, and no sleep is missed.
  if (sleepers_.fetch_sub(1, std::memory_order_seq_cst) == 1) Lower(sleeper_fd_);
}

void NetworkWatch::Wake() {
  if (sleepers_.load(std::memory_order_seq_cst) != 0) Raise(sleeper_fd_);
}

void NetworkWatch::RelayOnce() {
  relay_.store(true, std::memory_order_seq_cst);
  thread_bell_.Ring();
}

void NetworkWatch::Main() {
  while (!stop_.load(std::memory_order_seq_cst)) {
    if (relay_.exchange(false, std::memory_order_seq_cst)) {
      if (Poll(thread_fd_, policy::kMaxSleepNanos)) doorbell_->Ring();
      continue;
    }
    if (!callbacks_.busy()) {
      Poll(thread_fd_, callbacks_.serve() ? policy::kIdleNanos : policy::kNetworkRetryNanos);
      continue;
    }
    const uint32_t seen = thread_bell_.BeginSleep();
    if (!relay_.load(std::memory_order_seq_cst) && !stop_.load(std::memory_order_seq_cst)) {
      thread_bell_.Sleep(seen, policy::kNetworkIdleLookNanos);
    }
    thread_bell_.EndSleep();
  }
}

}  // namespace cohort::comm
