// Whether writes of a peer are answered at once by writes to it. Where they are, the answer carries the word that they are
// over, and a frame of its own is saved: over TCP it costs its sender as much as the answer does. It is what TCP does with
// acknowledgements in interactive sessions (RFC 1122, 4.2.3.2; Linux calls the mode "pingpong").
#pragma once

#include <cstdint>

#include "comm/transfer/policy.h"

namespace cohort::comm::transfer {

// Times are nanoseconds of any clock that does not go back, and not 0.
class AnswerHabit {
 public:
  // The word may wait for the next look, as an answer is expected before it.
  bool expected() const { return quick_ >= policy::kTransferQuickAnswers; }

  // Whether it is to be told of the next write to the peer.
  bool listens() const { return said_ != 0; }

  // The word has gone alone: no answer came before it, or none was expected.
  void SaidAlone(int64_t now) {
    if (expected() || said_ != 0) quick_ = 0;
    said_ = now;
  }
  // A write to the peer goes out.
  void Answered(int64_t now) {
    quick_ = now - said_ < policy::kTransferAnswerNanos ? quick_ + 1 : 0;
    said_ = 0;
  }

 private:
  int quick_ = 0;     // answers, one after each word
  int64_t said_ = 0;  // when the last word has gone; 0: a write has followed it
};

}  // namespace cohort::comm::transfer
