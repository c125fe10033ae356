// Making device communicators, and their life as groups change.
#include "comm/nccl/nccl_communicator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"

namespace cohort::comm::nccl {

absl::StatusOr<std::unique_ptr<DeviceCommunicator>> DeviceCommunicator::Create(
    std::shared_ptr<Communicator> base, const DeviceOptions& options, NcclApi& api) {
  if (base == nullptr) return absl::InvalidArgumentError("a device communicator needs one over host memory");
  if (options.piece_bytes < sizeof(double)) {
    return absl::InvalidArgumentError(
        absl::StrCat("pieces of ", options.piece_bytes, " bytes hold no element"));
  }
  auto communicator = std::make_unique<NcclCommunicator>(std::move(base), options, api);
  COHORT_RETURN_IF_ERROR(communicator->Renew());
  return communicator;
}

NcclCommunicator::NcclCommunicator(std::shared_ptr<Communicator> base, const DeviceOptions& options,
                                   NcclApi& api)
    : base_(std::move(base)), options_(options), api_(api) {}

NcclCommunicator::~NcclCommunicator() {
  if (session_ != nullptr) session_->Close();
}

absl::Status NcclCommunicator::Renew() {
  std::shared_ptr<Session> before;
  {
    const std::lock_guard lock(mutex_);
    before = std::exchange(session_, nullptr);
    unusable_ =
        absl::FailedPreconditionError("the device communicator was not made anew after the group changed");
  }
  if (before != nullptr) before->Close();
  before.reset();
  auto session = Session::Create(api_, *base_, options_);
  {
    const std::lock_guard lock(mutex_);
    if (!session.ok()) return unusable_ = session.status();
    session_ = *std::move(session);
    unusable_ = absl::OkStatus();
    group_ = nullptr;
    prices_ = options_.prices.value_or(WayPrices{});
  }
  if (topology().num_hosts() < 2 || options_.way.has_value() || options_.prices.has_value())
    return absl::OkStatus();
  return MeasurePrices();
}

absl::Status NcclCommunicator::MeasurePrices() {
  const size_t most = policy::kTimedBytes[1];
  COHORT_RETURN_IF_ERROR(api_.UseDevice(options_.device));
  COHORT_ASSIGN_OR_RETURN(void* const memory, api_.Allocate(most, options_.stream));
  absl::Status status;
  WayPrices prices;
  for (const Way way : {Way::kNccl, Way::kHosts}) {
    double seconds[2] = {}, crossing[2] = {};
    for (int size = 0; status.ok() && size < 2; ++size) {
      const auto timed = TimeAllReduce(way, memory, policy::kTimedBytes[size]);
      status = timed.status();
      if (timed.ok()) seconds[size] = *timed;
      crossing[size] =
          CrossingBytes(Operation::kAllReduce, policy::kTimedBytes[size], topology().num_hosts());
    }
    (way == Way::kNccl ? prices.nccl : prices.hosts) =
        PriceOf(crossing[0], seconds[0], crossing[1], seconds[1]);
  }
  status.Update(api_.Free(memory, options_.stream));
  const std::lock_guard lock(mutex_);
  prices_ = prices;
  return status;
}

absl::StatusOr<double> NcclCommunicator::TimeAllReduce(Way way, void* memory, size_t bytes) {
  absl::Status status;
  double best = absl::ToDoubleSeconds(absl::InfiniteDuration());
  for (int turn = 0; status.ok() && turn < policy::kTimedTurns; ++turn) {
    const absl::Time began = absl::Now();
    Collective call = Describe(Operation::kAllReduce);
    call.count = bytes / SizeOf(DataType::kF32);
    call.in_place = true;
    status = Collect(std::move(call), DataType::kF32, ReduceOp::kMax, memory, memory, way).Wait();
    if (status.ok()) best = std::min(best, absl::ToDoubleSeconds(absl::Now() - began));
  }
  // All ranks choose by the same numbers, or have none: also who has failed says so.
  double seconds[2] = {best, status.ok() ? 0.0 : 1.0};
  COHORT_RETURN_IF_ERROR(base_->AllReduce(seconds, seconds, 2, DataType::kF64, ReduceOp::kMax).Wait());
  COHORT_RETURN_IF_ERROR(status);
  if (seconds[1] > 0) return absl::UnavailableError("another rank's collectives could not be timed");
  return seconds[0];
}

absl::StatusOr<std::unique_ptr<Communicator>> NcclCommunicator::Split(int color, int key) {
  COHORT_ASSIGN_OR_RETURN(std::shared_ptr<Communicator> part, base_->Split(color, key));
  if (part == nullptr) return nullptr;
  return DeviceCommunicator::Create(std::move(part), options_, api_);
}

absl::StatusOr<MembershipChange> NcclCommunicator::Shrink(EditOptions options) {
  std::shared_ptr<Session> session;
  {
    const std::lock_guard lock(mutex_);
    session = session_;
  }
  if (session != nullptr) session->Close();
  return AfterEdit(base_->Shrink(std::move(options)));
}

absl::StatusOr<MembershipChange> NcclCommunicator::Grow(std::shared_ptr<JoinBoard> board,
                                                        EditOptions options) {
  std::shared_ptr<Session> session;
  {
    const std::lock_guard lock(mutex_);
    session = session_;
  }
  if (session != nullptr) session->Close();
  return AfterEdit(base_->Grow(std::move(board), std::move(options)));
}

absl::StatusOr<MembershipChange> NcclCommunicator::AfterEdit(absl::StatusOr<MembershipChange> change) {
  if (change.ok() && change->rank >= 0) {
    COHORT_RETURN_IF_ERROR(Renew());
    return change;
  }
  const std::lock_guard lock(mutex_);
  session_ = nullptr;
  unusable_ =
      change.ok() ? ExcludedStatus(Exclusion::kLeft, "this rank has left the group") : change.status();
  return change;
}

void NcclCommunicator::Abort(const absl::Status& why) {
  const absl::Status status = why.ok() ? absl::AbortedError("aborted") : why;
  base_->Abort(status);
  std::shared_ptr<Session> session;
  {
    const std::lock_guard lock(mutex_);
    session = session_;
  }
  if (session != nullptr) session->Fail(status);
}

Way NcclCommunicator::WayOf(Operation operation, size_t bytes) const {
  if (topology().num_hosts() < 2 || !HasHierarchicalPlan(operation)) return Way::kNccl;
  if (options_.way.has_value()) return *options_.way;
  const std::lock_guard lock(mutex_);
  return ChooseWay(prices_, operation, bytes, topology().num_hosts());
}

std::string NcclCommunicator::AlgorithmOf(Operation operation, size_t bytes) {
  return WayOf(operation, bytes) == Way::kNccl ? "nccl" : "nccl inside hosts";
}

absl::StatusOr<std::shared_ptr<Session>> NcclCommunicator::Usable() const {
  const std::lock_guard lock(mutex_);
  if (session_ == nullptr) return unusable_;
  if (group_ != nullptr) {
    return absl::FailedPreconditionError(
        "a group of sends and receives is open: nothing else can be called in it");
  }
  if (session_->epoch() == base_->epoch()) return session_;
  return absl::FailedPreconditionError(absl::StrCat("the base was edited (epoch ", base_->epoch(),
                                                    ", this one is of epoch ", session_->epoch(),
                                                    "): call Renew on all its members"));
}

}  // namespace cohort::comm::nccl
