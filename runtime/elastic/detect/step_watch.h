// Which steps a member tells of at once rather than with its next renewal, so that a straggler is named after so many
// steps, however short they are. All ranks wait for the slowest one in each step, so all see a slow one, and tell
// together. Pure: no clock.
#pragma once

#include <deque>

namespace cohort::runtime::elastic {

class StepWatch {
 public:
  // The next step took `seconds` in all, waiting included. True: tell it at once. These are the first ones of a mesh,
  // as a rank may be slow from the beginning, and those that take longer than usual, until that has become usual.
  bool Unusual(double seconds);
  // Another mesh.
  void Reset() { past_.clear(); }

 private:
  std::deque<double> past_;  // seconds of the newest steps
};

}  // namespace cohort::runtime::elastic
