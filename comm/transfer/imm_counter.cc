#include "comm/transfer/imm_counter.h"

#include <algorithm>

namespace cohort::comm::transfer {

std::optional<uint64_t> ImmCounter::Serve(uint32_t immediate) {
  const auto at = counters_.find(immediate);
  if (at == counters_.end()) return std::nullopt;
  Counter& counter = at->second;
  std::optional<uint64_t> token;
  if (!counter.expectations.empty() && counter.count >= counter.expectations.front().count) {
    token = counter.expectations.front().token;
    counter.count -= counter.expectations.front().count;
    counter.expectations.pop_front();
  }
  // A number that nobody waits for and nobody has sent takes no memory.
  if (counter.count == 0 && counter.expectations.empty()) counters_.erase(at);
  return token;
}

std::optional<uint64_t> ImmCounter::Add(uint32_t immediate) {
  ++counters_[immediate].count;
  return Serve(immediate);
}

bool ImmCounter::Expect(uint32_t immediate, uint64_t count, uint64_t token) {
  Counter& counter = counters_[immediate];
  counter.expectations.push_back({token, count});
  // Those before it are not fulfilled, or they would be gone.
  return counter.expectations.size() == 1 && Serve(immediate).has_value();
}

std::optional<uint64_t> ImmCounter::Cancel(uint32_t immediate, uint64_t token) {
  const auto at = counters_.find(immediate);
  if (at != counters_.end()) {
    std::erase_if(at->second.expectations, [&](const Expectation& one) { return one.token == token; });
  }
  return Serve(immediate);
}

uint64_t ImmCounter::Count(uint32_t immediate) const {
  const auto at = counters_.find(immediate);
  return at == counters_.end() ? 0 : at->second.count;
}

}  // namespace cohort::comm::transfer
