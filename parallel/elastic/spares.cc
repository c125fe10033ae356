#include "parallel/elastic/spares.h"

#include <cstdint>
#include <vector>

#include "comm/check.h"

namespace cohort::parallel {
namespace {

using Next = runtime::StepCallbacks::Next;

enum Tag { kAsk = 101, kNext = 102, kValue = 103 };

// What this rank starts in a group meanwhile waits for so long.
class ScopedTimeout {
 public:
  ScopedTimeout(comm::Communicator& group, absl::Duration timeout) : group_(group), before_(group.timeout()) {
    group_.SetTimeout(timeout);
  }
  ~ScopedTimeout() { group_.SetTimeout(before_); }
  ScopedTimeout(const ScopedTimeout&) = delete;

 private:
  comm::Communicator& group_;
  const absl::Duration before_;
};

absl::Status Tell(comm::Communicator& world, absl::Span<const int> ranks, absl::Duration patience,
                  int64_t value, Tag tag) {
  const ScopedTimeout timeout(world, patience);
  std::vector<comm::Work> works;
  for (const int rank : ranks) works.push_back(world.Send(&value, 1, DataType::kI64, rank, tag));
  absl::Status status;
  for (comm::Work& work : works) status.Update(work.Wait());
  return status;
}

}  // namespace

absl::StatusOr<Next> WaitAsSpare(comm::Communicator& world, int first, absl::Duration longest,
                                 const std::function<bool()>& wants_change) {
  const ScopedTimeout timeout(world, longest);
  for (;;) {
    const int64_t ask = wants_change() ? 1 : 0;
    int64_t next = 0;
    comm::Work told = world.Recv(&next, 1, DataType::kI64, first, kNext);
    COHORT_RETURN_IF_ERROR(world.Send(&ask, 1, DataType::kI64, first, kAsk).Wait());
    COHORT_RETURN_IF_ERROR(told.Wait());
    if (next != static_cast<int64_t>(Next::kStep)) return static_cast<Next>(next);
  }
}

absl::StatusOr<bool> SparesAsk(comm::Communicator& world, absl::Span<const int> spares,
                               absl::Duration patience) {
  const ScopedTimeout timeout(world, patience);
  std::vector<int64_t> asks(spares.size());
  std::vector<comm::Work> works;
  for (size_t i = 0; i < spares.size(); ++i) {
    works.push_back(world.Recv(&asks[i], 1, DataType::kI64, spares[i], kAsk));
  }
  absl::Status status;
  for (comm::Work& work : works) status.Update(work.Wait());
  COHORT_RETURN_IF_ERROR(status);
  for (const int64_t ask : asks) {
    if (ask != 0) return true;
  }
  return false;
}

absl::Status TellSpares(comm::Communicator& world, absl::Span<const int> spares, absl::Duration patience,
                        Next next) {
  return Tell(world, spares, patience, static_cast<int64_t>(next), kNext);
}

absl::Status TellWaiting(comm::Communicator& world, absl::Span<const int> waiting, absl::Duration patience,
                         int64_t value) {
  return Tell(world, waiting, patience, value, kValue);
}

absl::StatusOr<int64_t> HearAsWaiting(comm::Communicator& world, int first, absl::Duration longest) {
  const ScopedTimeout timeout(world, longest);
  int64_t value = 0;
  COHORT_RETURN_IF_ERROR(world.Recv(&value, 1, DataType::kI64, first, kValue).Wait());
  return value;
}

}  // namespace cohort::parallel
