// Which slot of a segment holds what: the two-slot protocol, a pure state machine.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>

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

inline constexpr int kSlots = 2;

// The slots of one rank. A generation is written by all ranks, each at its own time, and complete when all have. What
// is needed is the newest complete generation; a rank learns that one is complete at any time afterwards, and writes
// only into a slot that does not hold the newest it knows to be complete. So whoever dies when, there is a generation
// that all slots hold whole, from the first complete one on.
class Slots {
 public:
  enum class State : uint8_t { kTorn, kWriting, kWhole };
  struct Slot {
    State state = State::kTorn;
    GenerationName name;
  };

  // The slot to write this generation into. FAILED_PRECONDITION while one is being written, where it is no later than
  // what is written, and where the newest written is not known to be complete everywhere: both slots may be needed.
  absl::StatusOr<int> Begin(GenerationName name);
  // What was begun is whole.
  void Written();
  // What was begun will never be: its slot is torn.
  void Abandon();
  // Everybody has written it whole. Older news, and of what this rank has not written, change nothing.
  void Complete(GenerationName name);

  const std::array<Slot, kSlots>& slots() const { return slots_; }
  // The newest that is whole here, and the newest known to be so everywhere.
  std::optional<GenerationName> newest() const;
  std::optional<GenerationName> complete() const { return complete_; }

 private:
  std::optional<int> Find(State state) const;
  std::array<Slot, kSlots> slots_;
  std::optional<GenerationName> complete_;
};

}  // namespace cohort::runtime::elastic
