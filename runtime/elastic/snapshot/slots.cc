#include "runtime/elastic/snapshot/slots.h"

#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::runtime::elastic {

std::string ToString(const GenerationName& name) {
  return absl::StrCat("step ", name.step, " of epoch ", name.epoch);
}

Slots::Slots(int count) : slots_(static_cast<size_t>(count)) {
  COHORT_CHECK(count >= 2 && count <= kMostSlots, "%d slots", count);
}

std::optional<size_t> Slots::Find(State state) const {
  std::optional<size_t> found;
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].state == state && (!found || slots_[i].name > slots_[*found].name)) found = i;
  }
  return found;
}

Slots::Slot* Slots::Whole(GenerationName name) {
  for (Slot& slot : slots_) {
    if (slot.state == State::kWhole && slot.name == name) return &slot;
  }
  return nullptr;
}

std::optional<GenerationName> Slots::newest() const {
  const std::optional<size_t> whole = Find(State::kWhole);
  return whole ? std::optional(slots_[*whole].name) : std::nullopt;
}

absl::StatusOr<int> Slots::Begin(GenerationName name) {
  if (const std::optional<size_t> writing = Find(State::kWriting)) {
    return absl::FailedPreconditionError(absl::StrCat("snapshot of ", ToString(name), ": that of ",
                                                      ToString(slots_[*writing].name), " is not finished"));
  }
  if (const std::optional<GenerationName> last = newest(); last && name <= *last) {
    return absl::FailedPreconditionError(
        absl::StrCat("snapshot of ", ToString(name), ": there is one of ", ToString(*last), " already"));
  }
  // A torn one, or of those that nobody needs the oldest.
  size_t best = slots_.size();
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    const bool torn = slot.state == State::kTorn;
    const bool needed = slot.pins > 0 || !complete_ || slot.name >= *complete_;
    if (!torn && needed) continue;
    if (best == slots_.size() ||
        (slots_[best].state != State::kTorn && (torn || slot.name < slots_[best].name))) {
      best = i;
    }
  }
  if (best == slots_.size()) {
    std::string held;
    for (const Slot& slot : slots_) {
      absl::StrAppend(&held, held.empty() ? "" : ", ", ToString(slot.name),
                      slot.pins > 0            ? " (is being read)"
                      : complete_ == slot.name ? " (complete)"
                                               : " (not known to be complete on all ranks yet)");
    }
    return absl::FailedPreconditionError(
        absl::StrCat("snapshot of ", ToString(name), ": no slot is free: ", held));
  }
  slots_[best] = {State::kWriting, name, 0};
  return static_cast<int>(best);
}

void Slots::Written() {
  const std::optional<size_t> writing = Find(State::kWriting);
  COHORT_CHECK(writing.has_value(), "nothing was begun");
  slots_[*writing].state = State::kWhole;
}

void Slots::Abandon() {
  if (const std::optional<size_t> writing = Find(State::kWriting)) slots_[*writing].state = State::kTorn;
}

void Slots::Complete(GenerationName name) {
  if (Whole(name) == nullptr || (complete_ && name <= *complete_)) return;
  complete_ = name;
}

bool Slots::Pin(GenerationName name) {
  Slot* const slot = Whole(name);
  if (slot != nullptr) ++slot->pins;
  return slot != nullptr;
}

void Slots::Unpin(GenerationName name) {
  Slot* const slot = Whole(name);
  COHORT_CHECK(slot != nullptr && slot->pins > 0, "%s is not pinned", ToString(name).c_str());
  --slot->pins;
}

}  // namespace cohort::runtime::elastic
