#include "runtime/elastic/snapshot/slots.h"

#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::runtime::elastic {

std::string ToString(const GenerationName& name) {
  return absl::StrCat("step ", name.step, " of epoch ", name.epoch);
}

std::optional<int> Slots::Find(State state) const {
  std::optional<int> found;
  for (int i = 0; i < kSlots; ++i) {
    if (slots_[i].state == state && (!found || slots_[i].name > slots_[*found].name)) found = i;
  }
  return found;
}

std::optional<GenerationName> Slots::newest() const {
  const std::optional<int> whole = Find(State::kWhole);
  return whole ? std::optional(slots_[*whole].name) : std::nullopt;
}

absl::StatusOr<int> Slots::Begin(GenerationName name) {
  if (const std::optional<int> writing = Find(State::kWriting)) {
    return absl::FailedPreconditionError(absl::StrCat("snapshot of ", ToString(name), ": that of ",
                                                      ToString(slots_[*writing].name), " is not finished"));
  }
  const std::optional<GenerationName> last = newest();
  if (last && name <= *last) {
    return absl::FailedPreconditionError(
        absl::StrCat("snapshot of ", ToString(name), ": there is one of ", ToString(*last), " already"));
  }
  if (last && (!complete_ || *complete_ < *last)) {
    return absl::FailedPreconditionError(absl::StrCat("snapshot of ", ToString(name), ": that of ",
                                                      ToString(*last),
                                                      " is not known to be complete on all ranks yet"));
  }
  // The newest is complete everywhere: whatever else there is, is not needed.
  const std::optional<int> keep = Find(State::kWhole);
  const int slot = keep ? (*keep + 1) % kSlots : 0;
  slots_[slot] = {State::kWriting, name};
  return slot;
}

void Slots::Written() {
  const std::optional<int> writing = Find(State::kWriting);
  COHORT_CHECK(writing.has_value(), "nothing was begun");
  slots_[*writing].state = State::kWhole;
}

void Slots::Abandon() {
  if (const std::optional<int> writing = Find(State::kWriting)) slots_[*writing].state = State::kTorn;
}

void Slots::Complete(GenerationName name) {
  const std::optional<GenerationName> last = newest();
  if (!last || name > *last || (complete_ && name <= *complete_)) return;
  complete_ = name;
}

}  // namespace cohort::runtime::elastic
