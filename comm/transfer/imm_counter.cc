#include "comm/transfer/imm_counter.h"

#include <algorithm>

#include "comm/transfer/policy.h"

namespace cohort::comm::transfer {

ImmCounter::Counter& ImmCounter::Find(uint32_t immediate) {
  // A number that nobody waits for and nobody has sent takes memory only as long as there are few.
  if (counters_.size() >= sweep_at_ && counters_.count(immediate) == 0) {
    std::erase_if(counters_, [](const auto& entry) {
      return entry.second.count == 0 && entry.second.first == entry.second.expectations.size();
    });
    sweep_at_ = policy::kTransferCountersKept + 2 * counters_.size();
  }
  recent_ = &counters_[immediate];
  recent_number_ = immediate;
  return *recent_;
}

void* ImmCounter::Serve(Counter& counter) {
  if (counter.first == counter.expectations.size()) return nullptr;
  const Expectation& next = counter.expectations[counter.first];
  if (counter.count < next.count) return nullptr;
  void* who = next.who;
  counter.count -= next.count;
  if (++counter.first == counter.expectations.size()) {
    counter.expectations.clear();
    counter.first = 0;
  } else if (counter.first > 32 && counter.first > counter.expectations.size() / 2) {
    counter.expectations.erase(counter.expectations.begin(),
                               counter.expectations.begin() + static_cast<std::ptrdiff_t>(counter.first));
    counter.first = 0;
  }
  return who;
}

bool ImmCounter::Take(uint32_t immediate, uint64_t count) {
  Counter& counter = At(immediate);
  if (counter.first < counter.expectations.size() || counter.count < count) return false;
  counter.count -= count;
  return true;
}

void* ImmCounter::Cancel(uint32_t immediate, void* who) {
  Counter& counter = At(immediate);
  const auto begin = counter.expectations.begin() + static_cast<std::ptrdiff_t>(counter.first);
  counter.expectations.erase(std::remove_if(begin, counter.expectations.end(),
                                            [&](const Expectation& one) { return one.who == who; }),
                             counter.expectations.end());
  return Serve(counter);
}

uint64_t ImmCounter::Count(uint32_t immediate) const {
  const auto at = counters_.find(immediate);
  return at == counters_.end() ? 0 : at->second.count;
}

}  // namespace cohort::comm::transfer
