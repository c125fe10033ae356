// Making groups from C, and asking them.
#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/c/handles.h"
#include "comm/check.h"
#include "comm/policy.h"

namespace cohort::comm::c {
namespace {

// The caller's board.
class CallbackRendezvous : public Rendezvous {
 public:
  explicit CallbackRendezvous(const cohort_rendezvous& callbacks) : callbacks_(callbacks) {}

  int rank() const override { return callbacks_.rank; }
  int size() const override { return callbacks_.size; }

  absl::Status Put(const std::string& key, const std::string& value) override {
    const int code = callbacks_.put(callbacks_.user, key.c_str(), value.data(), value.size());
    if (code == 0) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat("the rendezvous callback put(", key, ") returned ", code));
  }

  absl::StatusOr<std::string> Get(const std::string& key, absl::Time deadline) override {
    std::string value;  // without room first, to learn its length
    for (absl::Duration pause = policy::kRendezvousFirstPause;;) {
      size_t bytes = 0;
      const int64_t left = std::max<int64_t>(0, absl::ToInt64Nanoseconds(deadline - absl::Now()));
      const int code = callbacks_.get(callbacks_.user, key.c_str(), left, value.data(), value.size(), &bytes);
      if (code == 0 && bytes <= value.size()) {
        value.resize(bytes);
        return value;
      }
      if (code == 0) {
        value.resize(bytes);
        continue;
      }
      if (code != COHORT_DEADLINE_EXCEEDED) {
        return absl::UnavailableError(absl::StrCat("the rendezvous callback get(", key, ") returned ", code));
      }
      if (absl::Now() >= deadline) {
        return absl::DeadlineExceededError(absl::StrCat("nobody put ", key, " to the rendezvous in time"));
      }
      absl::SleepFor(std::min(pause, deadline - absl::Now()));
      pause = std::min(2 * pause, policy::kRendezvousLongestPause);
    }
  }

 private:
  const cohort_rendezvous callbacks_;
};

absl::Status Create(absl::StatusOr<std::shared_ptr<Rendezvous>> rendezvous,
                    const cohort_comm_options* options, cohort_comm** comm) {
  COHORT_RETURN_IF_ERROR(rendezvous.status());
  COHORT_ASSIGN_OR_RETURN(const CommunicatorOptions parsed, ParseOptions(options));
  COHORT_ASSIGN_OR_RETURN(auto communicator, Communicator::Create(*std::move(rendezvous), parsed));
  *comm = new cohort_comm{std::move(communicator)};
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CommunicatorOptions> ParseOptions(const cohort_comm_options* options) {
  CommunicatorOptions parsed;
  if (options == nullptr) return parsed;
  COHORT_RETURN_IF_ERROR(CheckStructSize("cohort_comm_options", options->struct_size, sizeof(*options)));
  if (options->timeout_nanos < 0) return absl::InvalidArgumentError("the timeout is negative");
  if (options->timeout_nanos == COHORT_FOREVER) {
    parsed.timeout = absl::InfiniteDuration();
  } else if (options->timeout_nanos > 0) {
    parsed.timeout = absl::Nanoseconds(options->timeout_nanos);
  }
  return parsed;
}

}  // namespace cohort::comm::c

using namespace cohort::comm;     // NOLINT: below are functions of C
using namespace cohort::comm::c;  // NOLINT

cohort_status cohort_comm_create_mpi(const cohort_comm_options* options, cohort_comm** comm) {
  return Creating(comm, [&] { return Create(MpiRendezvous(), options, comm); });
}

cohort_status cohort_comm_create_folder(const char* folder, int rank, int size,
                                        const cohort_comm_options* options, cohort_comm** comm) {
  return Creating(comm, [&]() -> absl::Status {
    if (folder == nullptr) return NullArgument("the folder");
    return Create(FileRendezvous(folder, rank, size), options, comm);
  });
}

cohort_status cohort_comm_create(const cohort_rendezvous* rendezvous, const cohort_comm_options* options,
                                 cohort_comm** comm) {
  return Creating(comm, [&]() -> absl::Status {
    if (rendezvous == nullptr) return NullArgument("the rendezvous");
    COHORT_RETURN_IF_ERROR(
        CheckStructSize("cohort_rendezvous", rendezvous->struct_size, sizeof(*rendezvous)));
    if (rendezvous->put == nullptr || rendezvous->get == nullptr)
      return NullArgument("a rendezvous callback");
    return Create(std::make_shared<CallbackRendezvous>(*rendezvous), options, comm);
  });
}

cohort_status cohort_comm_create_single(cohort_comm** comm) {
  return Creating(comm, [&] {
    *comm = new cohort_comm{Communicator::Single()};
    return absl::OkStatus();
  });
}

cohort_status cohort_comm_split(cohort_comm* comm, int color, int key, cohort_comm** group) {
  return Creating(group, [&]() -> absl::Status {
    if (comm == nullptr) return NullArgument("the communicator");
    COHORT_ASSIGN_OR_RETURN(auto communicator, comm->communicator->Split(color, key));
    if (communicator != nullptr) *group = new cohort_comm{std::move(communicator)};
    return absl::OkStatus();
  });
}

void cohort_comm_free(cohort_comm* comm) {
  (void)Guard([&] {
    delete comm;
    return absl::OkStatus();
  });
}

int cohort_comm_rank(const cohort_comm* comm) { return comm == nullptr ? -1 : comm->communicator->rank(); }

int cohort_comm_size(const cohort_comm* comm) { return comm == nullptr ? -1 : comm->communicator->size(); }

int cohort_comm_num_hosts(const cohort_comm* comm) {
  return comm == nullptr ? -1 : comm->communicator->topology().num_hosts();
}

int cohort_comm_host_of(const cohort_comm* comm, int rank) {
  if (comm == nullptr || rank < 0 || rank >= comm->communicator->size()) return -1;
  return comm->communicator->topology().host_of(rank);
}

int cohort_comm_local_rank(const cohort_comm* comm) {
  return comm == nullptr ? -1 : comm->communicator->topology().local_rank();
}

int cohort_comm_local_size(const cohort_comm* comm) {
  return comm == nullptr ? -1 : comm->communicator->topology().local_size();
}
