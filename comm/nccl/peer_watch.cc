#include "comm/nccl/peer_watch.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"

namespace cohort::comm::nccl {

namespace {

std::string Ranks(const std::vector<int>& ranks) {
  return absl::StrCat(ranks.size() > 1 ? "ranks " : "rank ", absl::StrJoin(ranks, ", "));
}

}  // namespace

static_assert(std::is_trivially_copyable_v<Pulse>);  // it travels as it is

PeerWatch::PeerWatch(std::unique_ptr<Communicator> group)
    : group_(std::move(group)), known_(group_->size()), arriving_(group_->size()) {}

void PeerWatch::End(const absl::Status& why) {
  if (!over_) group_->Abort(why);
  over_ = true;
}

absl::Status PeerWatch::Step(const Pulse& own, bool busy) {
  if (over_) return absl::OkStatus();
  const absl::Time now = absl::Now();
  if (!in_flight_) {
    // What has begun while this rank was idle is told soon.
    if (now < next_ && !(busy && now + policy::kPulse < next_) && own.closing == told_.closing)
      return absl::OkStatus();
    told_ = own;
    const std::vector<size_t> counts(known_.size(), sizeof(Pulse));
    round_ = group_->AllGather(&told_, arriving_.data(), counts, DataType::kU8);
    in_flight_ = true;
  }
  if (!round_.Done()) return absl::OkStatus();
  in_flight_ = false;
  const absl::Status status = round_.Wait();
  if (!status.ok()) {
    over_ = true;
    return status;
  }
  known_ = arriving_;
  next_ = now + (busy ? policy::kPulse : policy::kIdlePulse);
  if (std::any_of(known_.begin(), known_.end(), [](const Pulse& pulse) { return pulse.closing != 0; }))
    over_ = true;
  return Judge();
}

absl::Status PeerWatch::Judge() const {
  for (size_t rank = 0; rank < known_.size(); ++rank) {
    const Pulse& theirs = known_[rank];
    const uint64_t last = std::min(theirs.started, told_.started);
    // Both have told of it.
    const uint64_t most = std::max(theirs.started, told_.started);
    const uint64_t first = most < policy::kTold ? 1 : most - policy::kTold + 1;
    for (uint64_t number = first; number <= last; ++number) {
      const size_t at = number % policy::kTold;
      if (theirs.called[at] == told_.called[at]) continue;
      return Mismatch(group_->members()[rank], theirs.called[at], group_->members()[group_->rank()],
                      told_.called[at]);
    }
  }
  return absl::OkStatus();
}

absl::Status PeerWatch::Late(uint64_t number, const std::vector<int>& peers, const std::string& what) const {
  const auto late = [&](const auto&... parts) {
    return absl::DeadlineExceededError(absl::StrCat(what, " timed out: ", parts...));
  };
  if (!peers.empty()) return late("waiting for ", Ranks(peers));
  std::vector<int> absent, unfinished;
  for (int rank = 0; rank < group_->size(); ++rank) {
    if (rank == group_->rank()) continue;
    if (known_[rank].started < number) absent.push_back(group_->members()[rank]);
    if (known_[rank].finished < number) unfinished.push_back(group_->members()[rank]);
  }
  if (!absent.empty())
    return late("late ", Ranks(absent), absent.size() > 1 ? " have" : " has", " not called it");
  if (unfinished.empty())
    return late("NCCL does not end it on this rank (", group_->members()[group_->rank()], ")");
  return late("all ranks have called it, but NCCL does not end it, neither here nor on ", Ranks(unfinished));
}

}  // namespace cohort::comm::nccl
