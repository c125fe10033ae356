// Counts immediates, and tells who waits for so many of a number. Not thread-safe: the engine's lock guards
// it.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "comm/transfer/policy.h"

namespace cohort::comm::transfer {

// Expectations of one number are served in their order, and take what they expect off the counter. `who` is whatever
// their owner knows them by, not null.
class ImmCounter {
 public:
  // Counts one. The expectation that is fulfilled by it, or null.
  void* Add(uint32_t immediate) {
    Counter& counter = At(immediate);
    ++counter.count;
    return counter.first < counter.expectations.size() ? Serve(counter) : nullptr;
  }
  // Takes so many off, where they are there and nobody waits for them.
  bool Take(uint32_t immediate, uint64_t count);
  // After Take was false. `who` will be returned by one of the others.
  void Expect(uint32_t immediate, uint64_t count, void* who) {
    At(immediate).expectations.push_back({who, count});
  }
  // Takes an expectation back. What it would have taken remains counted: returns the expectation that is fulfilled
  // thereby, or null; Serve returns the next ones.
  void* Cancel(uint32_t immediate, void* who);
  void* Serve(uint32_t immediate) { return Serve(At(immediate)); }
  uint64_t Count(uint32_t immediate) const;

 private:
  struct Expectation {
    void* who;
    uint64_t count;
  };
  struct Counter {
    uint64_t count = 0;
    std::vector<Expectation> expectations;
    size_t first = 0;  // those before are served
  };
  Counter& At(uint32_t immediate) {
    if (recent_ != nullptr && recent_number_ == immediate) return *recent_;
    return Find(immediate);
  }
  Counter& Find(uint32_t immediate);
  static void* Serve(Counter& counter);

  std::unordered_map<uint32_t, Counter> counters_;
  size_t sweep_at_ = policy::kTransferCountersKept;
  Counter* recent_ = nullptr;
  uint32_t recent_number_ = 0;
};

}  // namespace cohort::comm::transfer
