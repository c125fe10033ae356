#include "parallel/sequence/context_group.h"

#include "comm/check.h"
#include "runtime/metrics/waited.h"

namespace cohort::parallel {

bool ContextGroup::IsWhole() const {
  bool whole = size() == comm->size();
  for (int i = 0; whole && i < size(); ++i) whole = members[i] == i;
  return whole;
}

ContextGroup ContextGroup::Part(int first, int count, int stride) const {
  ContextGroup part{comm, {}, -1};
  for (int i = 0; i < count; ++i) {
    if (first + i * stride == rank) part.rank = i;
    part.members.push_back(members[first + i * stride]);
  }
  COHORT_CHECK(part.rank >= 0, "rank %d is not in its own part of the context group", rank);
  return part;
}

ContextGroup WholeGroup(std::shared_ptr<comm::Communicator> comm) {
  ContextGroup group{comm, {}, comm->rank()};
  for (int rank = 0; rank < comm->size(); ++rank) group.members.push_back(rank);
  return group;
}

absl::Status WaitForAll(absl::Span<const comm::Work> works) {
  const runtime::WaitScope waits("wait for a context");
  absl::Status status;
  for (const comm::Work& work : works) status.Update(work.Wait());
  return status;
}

}  // namespace cohort::parallel
