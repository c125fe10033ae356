// Making NCCL's communicators, while every rank watches whether the others still come.
#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/nccl/session.h"

namespace cohort::comm::nccl {
namespace {

// What a rank says when it has come.
struct Hello {
  UniqueId whole{};   // of rank 0
  UniqueId inside{};  // of the first rank of each host
};

// How far a rank is with what all do, and why it cannot go on.
struct State {
  uint8_t ready = 0;
  uint8_t code = 0;
  std::array<char, 510> why{};

  static State Of(const absl::Status& status, bool ready) {
    State state;
    state.ready = ready ? 1 : 0;
    state.code = static_cast<uint8_t>(status.code());
    const absl::string_view why = status.message().substr(0, state.why.size() - 1);
    std::copy(why.begin(), why.end(), state.why.begin());
    return state;
  }
};

template <typename T>
absl::StatusOr<std::vector<T>> AllSay(Communicator& group, const T& own) {
  std::vector<T> all(group.size());
  const std::vector<size_t> counts(group.size(), sizeof(T));
  COHORT_RETURN_IF_ERROR(group.AllGather(&own, all.data(), counts, DataType::kU8).Wait());
  return all;
}

// Rounds until all are ready or one has failed; `step` says whether this rank is ready.
absl::Status Together(Communicator& group, absl::Time deadline,
                      const std::function<absl::StatusOr<bool>()>& step) {
  for (;;) {
    absl::StatusOr<bool> own = step();
    if (own.ok() && !*own && absl::Now() > deadline) {
      own = absl::DeadlineExceededError(
          absl::StrCat("NCCL has not connected rank ", group.members()[group.rank()]));
    }
    COHORT_ASSIGN_OR_RETURN(const std::vector<State> all,
                            AllSay(group, State::Of(own.status(), own.ok() && *own)));
    bool ready = true;
    for (int rank = 0; rank < group.size(); ++rank) {
      if (rank == group.rank() && !own.ok()) return own.status();
      if (all[rank].code != 0) {
        return absl::Status(
            static_cast<absl::StatusCode>(all[rank].code),
            absl::StrCat(all[rank].why.data(), " [said by rank ", group.members()[rank], "]"));
      }
      ready = ready && all[rank].ready != 0;
    }
    if (ready) return absl::OkStatus();
    absl::SleepFor(policy::kMeetingPause);
  }
}

}  // namespace

Session::Session(NcclApi& api, const Communicator& base, const DeviceOptions& options)
    : api_(api),
      device_(options.device),
      stream_(options.stream),
      epoch_(base.epoch()),
      rank_(base.rank()),
      size_(base.size()),
      members_(base.members()),
      hosts_(base.topology().map()),
      piece_bytes_(options.piece_bytes) {}

absl::StatusOr<std::shared_ptr<Session>> Session::Create(NcclApi& api, Communicator& base,
                                                         const DeviceOptions& options) {
  std::shared_ptr<Session> session(new Session(api, base, options));
  COHORT_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> group, base.Split(0, base.rank()));
  group->SetTimeout(base.timeout());
  if (const absl::Status met = session->Meet(*group); !met.ok()) {
    // Others may still be in a round, and hear it there.
    group->Abort(met);
    session->stuck_ = !session->AbortNccl();
    return met;
  }
  session->watch_ = std::make_unique<PeerWatch>(std::move(group));
  session->watcher_ = std::thread([raw = session.get()] { raw->WatcherMain(); });
  return session;
}

absl::Status Session::Meet(Communicator& group) {
  const absl::Time deadline = absl::Now() + group.timeout();
  const bool several = hosts_->num_hosts() > 1;
  const int local = hosts_->local_rank(rank_), host = hosts_->host_of(rank_);
  std::unique_ptr<Communicator> lanes;
  if (several) {
    // Of this group, so that what ends it ends them.
    COHORT_ASSIGN_OR_RETURN(lanes, group.Split(local < hosts_->fewest_on_a_host() ? local : -1, host));
  }

  Hello hello;
  bool prepared = false;
  COHORT_RETURN_IF_ERROR(Together(group, deadline, [&]() -> absl::StatusOr<bool> {
    if (prepared) return true;
    COHORT_RETURN_IF_ERROR(api_.UseDevice(device_));
    if (rank_ == 0) {
      COHORT_ASSIGN_OR_RETURN(hello.whole, api_.GetUniqueId());
    }
    if (several && local == 0) {
      COHORT_ASSIGN_OR_RETURN(hello.inside, api_.GetUniqueId());
    }
    if (several) {
      COHORT_ASSIGN_OR_RETURN(bridge_, HostBridge::Create(api_, std::move(lanes), piece_bytes_));
    }
    prepared = true;
    return true;
  }));
  COHORT_ASSIGN_OR_RETURN(const std::vector<Hello> hellos, AllSay(group, hello));
  return MakeNccl(group, hellos[0].whole, hellos[hosts_->ranks_on(host)[0]].inside);
}

absl::Status Session::MakeNccl(Communicator& group, const UniqueId& whole, const UniqueId& inside) {
  // One after the other: NCCL makes one communicator of a device at a time.
  const auto make = [&](Handle* handle, int size, const UniqueId& id, int rank) {
    bool begun = false;
    return Together(group, absl::Now() + group.timeout(), [&, handle, size, rank]() -> absl::StatusOr<bool> {
      COHORT_ASSIGN_OR_RETURN(const Progress progress,
                              begun ? api_.AsyncError(*handle) : api_.Init(handle, size, id, rank));
      begun = true;
      return progress == Progress::kDone;
    });
  };
  COHORT_RETURN_IF_ERROR(make(&whole_, size_, whole, rank_));
  if (hosts_->num_hosts() == 1) return absl::OkStatus();
  const int host_size = static_cast<int>(hosts_->ranks_on(hosts_->host_of(rank_)).size());
  return make(&inside_, host_size, inside, hosts_->local_rank(rank_));
}

}  // namespace cohort::comm::nccl
