#include "runtime/elastic/parity/pipeline.h"

#include <algorithm>
#include <array>

#include "comm/check.h"

namespace cohort::runtime::elastic {
namespace {

absl::Status WaitAll(std::vector<comm::Work>& works, absl::Time deadline) {
  for (const comm::Work& work : works) COHORT_RETURN_IF_ERROR(work.Wait(deadline));
  works.clear();
  return absl::OkStatus();
}

}  // namespace

absl::Status RunSteps(comm::Communicator& communicator, size_t steps, absl::Time deadline,
                      const std::function<void(size_t, StepSlot&)>& start,
                      const std::function<absl::Status(size_t, StepSlot&)>& finish) {
  constexpr size_t kAhead = parity_policy::kAhead;
  std::array<StepSlot, kAhead> slots;
  const absl::Status status = [&]() -> absl::Status {
    size_t started = 0;
    for (size_t step = 0; step < steps; ++step) {
      for (; started < std::min(steps, step + kAhead); ++started) {
        StepSlot& slot = slots[started % kAhead];
        COHORT_RETURN_IF_ERROR(WaitAll(slot.leaving, deadline));
        start(started, slot);
      }
      StepSlot& slot = slots[step % kAhead];
      COHORT_RETURN_IF_ERROR(WaitAll(slot.arriving, deadline));
      COHORT_RETURN_IF_ERROR(finish(step, slot));
    }
    for (StepSlot& slot : slots) COHORT_RETURN_IF_ERROR(WaitAll(slot.leaving, deadline));
    return absl::OkStatus();
  }();
  if (status.ok()) return status;
  // Messages in flight use memory that goes: they end now, not when their own time is over.
  communicator.Abort(status);
  for (StepSlot& slot : slots) {
    for (const auto* works : {&slot.arriving, &slot.leaving}) {
      for (const comm::Work& work : *works) (void)work.Wait();
    }
  }
  return status;
}

}  // namespace cohort::runtime::elastic
