// Which slot of a segment holds what: a pure state machine.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace cohort::runtime::elastic {

// One moment of the training, the same on all ranks: the state after so many steps, on that mesh.
struct GenerationName {
  uint64_t epoch = 0;
  int64_t step = 0;
  // Later is greater: an epoch goes on from a step that an earlier one had, and counts for more.
  auto operator<=>(const GenerationName&) const = default;
};
std::string ToString(const GenerationName& name);

// The most slots that a segment has.
inline constexpr int kMostSlots = 4;

// The slots of one rank. A generation is written by all ranks, each at its own time, and complete when all have, and
// have of it whatever else they want (parity). Generations complete in the order in which they were begun; a rank learns
// it at any time afterwards. What is needed is the newest complete one, so a rank writes only into a slot that is torn,
// or whose generation is older than the newest it knows to be complete, and which nobody who reads it has pinned. So
// whoever dies when, there is a generation that all slots hold whole, from the first complete one on.
//
// Two slots do: one that is complete, one that is written. Each generation more that is whole and not yet known to be
// complete when the next begins (its parity is being encoded) wants one more, and so does each that is pinned.
class Slots {
 public:
  enum class State : uint8_t { kTorn, kWriting, kWhole };
  struct Slot {
    State state = State::kTorn;
    GenerationName name;
    int pins = 0;
  };

  // 2 to kMostSlots.
  explicit Slots(int count = 2);

  // The slot to write this generation into. FAILED_PRECONDITION while one is being written, where it is no later than
  // what is written, and where no slot is free.
  absl::StatusOr<int> Begin(GenerationName name);
  // What was begun is whole.
  void Written();
  // What was begun will never be: its slot is torn.
  void Abandon();
  // Everybody has written it whole, and all that were begun before it. Older news, and of what this rank has not
  // written, change nothing.
  void Complete(GenerationName name);
  // What is whole here stays as it is until it was unpinned as often; false: it is not here.
  bool Pin(GenerationName name);
  void Unpin(GenerationName name);

  const std::vector<Slot>& slots() const { return slots_; }
  // The newest that is whole here, and the newest known to be complete.
  std::optional<GenerationName> newest() const;
  std::optional<GenerationName> complete() const { return complete_; }

 private:
  std::optional<size_t> Find(State state) const;
  Slot* Whole(GenerationName name);
  std::vector<Slot> slots_;
  std::optional<GenerationName> complete_;
};

}  // namespace cohort::runtime::elastic
