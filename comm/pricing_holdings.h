// Who has which parts of a buffer, and since when.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "comm/pricing_clock.h"

namespace cohort::comm::pricing {

// What members have beside what they began with: places of parts, as whoever uses it counts them, and since when.
class Holdings {
 public:
  Holdings(const Times& start, size_t room)
      : start_(start), room_(room), spans_(start.size() * room), known_(start.size()), fresh_(start.size()) {}

  // When all of these places are there; where none of them came from elsewhere, when the member began.
  Moment Since(Clock& clock, int member, int begin, int end) const {
    Moment since = start_[member];
    const Span* span = &spans_[member * room_];
    for (uint32_t i = 0; i < known_[member]; ++i, ++span) {
      if (span->begin < end && begin < span->end) since = clock.Later(since, span->when);
    }
    return since;
  }
  // Known from the end of the round on.
  void Add(int member, int begin, int end, Moment when) {
    spans_[member * room_ + known_[member] + fresh_[member]++] = {begin, end, when};
  }
  void EndRound() {
    for (size_t m = 0; m < known_.size(); ++m) known_[m] += std::exchange(fresh_[m], 0);
  }

 private:
  struct Span {
    int begin, end;
    Moment when;
  };
  const Times start_;
  const size_t room_;
  std::vector<Span> spans_;
  std::vector<uint32_t> known_, fresh_;
};

}  // namespace cohort::comm::pricing
