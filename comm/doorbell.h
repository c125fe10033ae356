// Where the threads of one rank sleep, and how others wake them: a futex, in shared memory or in private.
#pragma once

#include <atomic>
#include <cstdint>

namespace cohort::comm {

// All zero at first. Whoever makes something visible that a sleeper may wait for, does so by a sequentially
// consistent store, or StoreAndFence (fence.h), and then calls Ring. A sleeper calls BeginSleep, looks once more, and then Sleep or not;
// and EndSleep in either case. So either the sleeper sees the news or the ringer sees the sleeper.
struct Doorbell {
  std::atomic<uint32_t> bell;
  std::atomic<uint32_t> sleepers;

  void Ring() {
    if (sleepers.load(std::memory_order_seq_cst) != 0) Wake();
  }
  void Wake();

  uint32_t BeginSleep();
  void Sleep(uint32_t seen, int64_t nanos);
  void EndSleep() { sleepers.fetch_sub(1, std::memory_order_relaxed); }
};
static_assert(sizeof(Doorbell) == 8 && std::atomic<uint32_t>::is_always_lock_free);

// Steady time. Deadlines inside the room are in these.
int64_t NowNanos();

}  // namespace cohort::comm
