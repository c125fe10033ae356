#include "comm/doorbell.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <climits>

namespace cohort::comm {

void Doorbell::Wake() {
  bell.fetch_add(1, std::memory_order_seq_cst);
  syscall(SYS_futex, &bell, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

uint32_t Doorbell::BeginSleep() {
  sleepers.fetch_add(1, std::memory_order_seq_cst);
  return bell.load(std::memory_order_seq_cst);
}

void Doorbell::Sleep(uint32_t seen, int64_t nanos) {
  if (nanos <= 0) return;
  timespec timeout = {};
  timeout.tv_sec = nanos / 1'000'000'000;
  timeout.tv_nsec = nanos % 1'000'000'000;
  syscall(SYS_futex, &bell, FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

int64_t NowNanos() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

}  // namespace cohort::comm
