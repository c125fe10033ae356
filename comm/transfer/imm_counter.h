// Counts immediates, and tells who waits for so many of a number. Not thread-safe: the engine's lock guards
// it.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>

namespace cohort::comm::transfer {

// Expectations of one number are served in their order, and take what they expect off the counter.
class ImmCounter {
 public:
  // Counts one. The expectation that is fulfilled by it, if any.
  std::optional<uint64_t> Add(uint32_t immediate);
  // True where it is fulfilled at once; else `token` will be returned by Add.
  bool Expect(uint32_t immediate, uint64_t count, uint64_t token);
  // Takes an expectation back. What it would have taken remains counted; returns the expectation that is
  // fulfilled thereby, if any: it may be called again then (it returns one at a time).
  std::optional<uint64_t> Cancel(uint32_t immediate, uint64_t token);
  uint64_t Count(uint32_t immediate) const;

 private:
  struct Expectation {
    uint64_t token;
    uint64_t count;
  };
  struct Counter {
    uint64_t count = 0;
    std::deque<Expectation> expectations;
  };
  std::optional<uint64_t> Serve(uint32_t immediate);
  std::unordered_map<uint32_t, Counter> counters_;
};

}  // namespace cohort::comm::transfer
