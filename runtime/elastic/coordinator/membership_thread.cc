#include "runtime/elastic/coordinator/membership_thread.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "runtime/elastic/coordinator/cluster_state.h"
#include "runtime/elastic/coordinator/process_look.h"

namespace cohort::cluster {
namespace {

using Stub = v1::Cluster::Stub;

bool Has(const v1::Epoch& epoch, const std::string& name) {
  return std::find(epoch.members().begin(), epoch.members().end(), name) != epoch.members().end();
}

}  // namespace

absl::Status MembershipThread::JoinOnce(absl::Duration timeout) {
  v1::JoinRequest request;
  {
    const std::lock_guard lock(mutex_);
    request = member_;
  }
  v1::JoinResponse response;
  COHORT_RETURN_IF_ERROR(caller_.Try(&Stub::Join, request, &response, timeout));
  Joined(response);
  return absl::OkStatus();
}

void MembershipThread::Joined(const v1::JoinResponse& response) {
  const std::lock_guard lock(mutex_);
  standing_.joined = true;
  standing_.reachable = true;
  standing_.member_id = response.member_id();
  standing_.incarnation = response.incarnation();
  standing_.epoch = response.epoch().number();
  standing_.heard = absl::Now();
  lease_ = absl::Seconds(response.lease_seconds());
}

absl::Status MembershipThread::Join(absl::Time deadline) {
  if (standing().joined) return absl::OkStatus();
  v1::JoinResponse response;
  COHORT_RETURN_IF_ERROR(caller_.Call(&Stub::Join, member_, &response, deadline));
  Joined(response);
  const std::lock_guard lock(mutex_);
  if (!thread_.joinable() && !stop_) thread_ = std::thread([this] { Run(); });
  return absl::OkStatus();
}

void MembershipThread::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Standing MembershipThread::standing() const {
  const std::lock_guard lock(mutex_);
  return standing_;
}

int64_t MembershipThread::id() const {
  const std::lock_guard lock(mutex_);
  return standing_.member_id;
}

void MembershipThread::SetReport(const v1::StepReport& report) {
  {
    const std::lock_guard lock(mutex_);
    report_ = report;
    soon_ |= report.unusual();
  }
  if (report.unusual()) changed_.notify_all();
}

void MembershipThread::Tell(v1::ReportRequest report) {
  {
    const std::lock_guard lock(mutex_);
    report.set_sequence(++sequence_);
    told_.push_back(std::move(report));
    if (told_.size() > policy::kToldKept) told_.pop_front();
  }
  changed_.notify_all();
}

void MembershipThread::RecordEpoch(const EpochAdvance& advance) {
  {
    const std::lock_guard lock(mutex_);
    epochs_.push_back(advance);
    if (epochs_.size() > policy::kEpochsKept) epochs_.pop_front();  // later ones may pass over it
    last_advance_ = advance;
    member_.set_last_epoch(std::max(member_.last_epoch(), advance.to));
  }
  changed_.notify_all();
}

bool MembershipThread::Flush(absl::Time deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, absl::ToChronoTime(deadline),
                             [&] { return stop_ || (told_.empty() && epochs_.empty()); }) &&
         told_.empty() && epochs_.empty();
}

void MembershipThread::Run() {
  auto next = std::chrono::steady_clock::now();
  auto soonest = next;
  std::unique_lock lock(mutex_);
  const auto due = [&] { return soon_ && standing_.reachable ? std::min(next, soonest) : next; };
  while (!stop_) {
    // What is told waits for the next renewal where the coordinator is away, and was not taken.
    size_t left = told_.size() + epochs_.size();
    const auto until = due();
    changed_.wait_until(lock, until, [&] {
      return stop_ || due() < until || (standing_.reachable && told_.size() + epochs_.size() > left);
    });
    if (stop_) break;
    bool there = standing_.reachable;
    const auto now = std::chrono::steady_clock::now();
    if (now >= due()) {
      soon_ = false;
      lock.unlock();
      there = Renew();
      lock.lock();
      absl::Duration pause = lease_ / policy::kRenewalsPerLease;
      if (!there) pause = std::min(pause, policy::kLongestPause);  // it may be back at any moment
      next = now + absl::ToChronoNanoseconds(pause);
      soonest = now + absl::ToChronoNanoseconds(soonest_);
    }
    if (!there) continue;
    lock.unlock();
    SendEpochs();
    SendTold();
    changed_.notify_all();  // Flush
    lock.lock();
  }
}

bool MembershipThread::Renew() {
  v1::RenewRequest request;
  absl::Duration timeout;
  {
    const std::lock_guard lock(mutex_);
    request.set_member_id(standing_.member_id);
    if (report_.has_value()) {
      *request.mutable_report() = *report_;
      if (phase_ != nullptr) request.mutable_report()->set_phase(phase_());
    }
    timeout = std::max(lease_ / 2, policy::kFirstPause);
  }
  for (const int64_t pid : std::exchange(look_at_, {})) {
    v1::ProcessSeen& seen = *request.add_seen();
    seen.set_pid(pid);
    seen.set_state(LookAtProcess(pid));
  }
  v1::RenewResponse response;
  auto sent = std::chrono::steady_clock::now();
  absl::Status status = caller_.Try(&Stub::Renew, request, &response, timeout);
  bool forgotten = absl::IsNotFound(status);
  if (status.ok()) {
    const std::lock_guard lock(mutex_);
    forgotten = response.incarnation() != standing_.incarnation;
  }
  if (forgotten) {
    // Another coordinator, or one that has lost its state: it is told again who this is.
    const absl::Status joined = JoinOnce(timeout);
    if (absl::IsAlreadyExists(joined) ||
        absl::IsFailedPrecondition(joined)) {  // the name, or the job, is another's
      const std::lock_guard lock(mutex_);
      Evicted(std::string(joined.message()));
    } else if (joined.ok()) {
      request.set_member_id(id());
      sent = std::chrono::steady_clock::now();
      status = caller_.Try(&Stub::Renew, request, &response, timeout);
    } else {
      status = joined;
    }
  }
  const std::lock_guard lock(mutex_);
  standing_.reachable = !Caller::IsAway(status) && !absl::IsCancelled(status);
  if (!status.ok()) {
    if (standing_.reachable && status.message() != complaint_) {
      complaint_ = std::string(status.message());
      spdlog::warn("the coordinator refuses {}: {}", member_.name(), complaint_);
    }
    if (absl::IsInvalidArgument(status)) report_.reset();  // one that makes no sense
    return standing_.reachable;
  }
  Take(response, sent);
  return true;
}

void MembershipThread::Take(const v1::RenewResponse& response, std::chrono::steady_clock::time_point sent) {
  standing_.incarnation = response.incarnation();
  standing_.epoch = response.epoch();
  standing_.in_epoch = response.in_epoch();
  standing_.leave_requested = response.leave_requested();
  standing_.leave_reason = response.leave_reason();
  standing_.newcomers_waiting = response.newcomers_waiting();
  standing_.gone.assign(response.gone().begin(), response.gone().end());
  standing_.straggler_since = response.straggler_since();
  standing_.straggler_words = response.straggler_words();
  standing_.leased = response.leased();
  standing_.heard = absl::Now();
  lease_ = absl::Seconds(response.lease_seconds());
  soonest_ = absl::Seconds(response.soonest_seconds());
  standing_.renewed = sent;
  standing_.lease_until = sent + absl::ToChronoNanoseconds(lease_);
  look_at_.assign(response.look_at().begin(), response.look_at().end());
  if (response.in_epoch()) {
    member_.set_last_epoch(std::max(member_.last_epoch(), response.epoch()));
    standing_.evicted = false;  // it was taken in again
  }
  if (response.evicted()) Evicted(absl::StrCat("epoch ", response.epoch(), " is without this member"));
  // A coordinator that has lost its state has forgotten the epoch as well.
  if (last_advance_.has_value() && last_advance_->to > response.epoch() && epochs_.empty()) {
    epochs_.push_back(*last_advance_);
  }
}

void MembershipThread::Evicted(const std::string& why) {
  if (standing_.evicted) return;
  standing_.evicted = true;
  standing_.why = why;
  epochs_.clear();
  last_advance_.reset();
  spdlog::warn("{} is out of the group: {}", member_.name(), why);
}

bool MembershipThread::NotTaken(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  if (Caller::IsAway(status)) standing_.reachable = false;
  // The next renewal joins again where the coordinator does not know this member.
  return Caller::IsAway(status) || absl::IsNotFound(status) || absl::IsCancelled(status) ||
         absl::IsResourceExhausted(status);
}

void MembershipThread::SendTold() {
  for (;;) {
    v1::ReportRequest report;
    {
      const std::lock_guard lock(mutex_);
      if (told_.empty() || stop_) return;
      report = told_.front();
      report.set_member_id(standing_.member_id);
    }
    v1::ReportResponse response;
    const absl::Status status = caller_.Try(&Stub::Report, report, &response, policy::kTryTimeout);
    if (NotTaken(status)) return;
    if (!status.ok()) {
      spdlog::warn("the coordinator refuses an event ({}): {}", std::string(status.message()),
                   report.words());
    }
    const std::lock_guard lock(mutex_);
    // It may have been dropped meanwhile.
    if (!told_.empty() && told_.front().sequence() == report.sequence()) told_.pop_front();
  }
}

v1::AdvanceEpochRequest MembershipThread::ToRequest(const EpochAdvance& advance) const {
  v1::AdvanceEpochRequest request;
  request.set_member_id(id());
  request.set_from(advance.from);
  request.set_to(advance.to);
  request.mutable_members()->Add(advance.members.begin(), advance.members.end());
  request.set_arrangement(advance.arrangement);
  request.set_step(advance.step);
  request.set_why(advance.why);
  return request;
}

void MembershipThread::SendEpochs() {
  for (;;) {
    v1::AdvanceEpochRequest request;
    {
      std::unique_lock lock(mutex_);
      if (epochs_.empty() || stop_) return;
      const EpochAdvance advance = epochs_.front();
      lock.unlock();
      request = ToRequest(advance);
    }
    v1::AdvanceEpochResponse response;
    const absl::Status status = caller_.Try(&Stub::AdvanceEpoch, request, &response, policy::kTryTimeout);
    if (NotTaken(status)) return;
    const std::optional<v1::Epoch> present = PresentEpoch(status);
    std::optional<v1::Epoch> whole;
    if (present.has_value()) whole = PresentEpoch(WithMembers(status));
    const std::lock_guard lock(mutex_);
    if (epochs_.empty()) return;
    if (present.has_value()) {
      if (present->counted() < request.to() && present->counted() != request.from()) {
        epochs_.front().from = present->counted();  // it has missed some in between
        continue;
      }
      if (present->counted() == request.from() || !whole.has_value() || !Has(*whole, member_.name())) {
        Evicted(std::string(status.message()));
        return;
      }
      // Later ones were told already, and this member is in them.
    } else if (!status.ok()) {
      spdlog::warn("the coordinator refuses epoch {}: {}", request.to(), std::string(status.message()));
      last_advance_.reset();
    } else {
      standing_.epoch = std::max(standing_.epoch, response.epoch().number());
      standing_.in_epoch = true;
    }
    epochs_.pop_front();
  }
}

absl::Status MembershipThread::WithMembers(absl::Status refusal) {
  const std::optional<v1::Epoch> named = PresentEpoch(refusal);
  if (!named.has_value() || named->number() == 0 || !named->members().empty()) return refusal;
  v1::Epoch whole;
  if (caller_.Try(&Stub::GetEpoch, v1::GetEpochRequest(), &whole, policy::kTryTimeout).ok()) {
    refusal.SetPayload(kEpochPayload, absl::Cord(whole.SerializeAsString()));
  }
  return refusal;
}

absl::StatusOr<v1::Epoch> MembershipThread::AdvanceEpoch(const EpochAdvance& advance, absl::Time deadline) {
  for (;;) {
    if (!standing().joined) return absl::FailedPreconditionError("a process joins before it tells of epochs");
    v1::AdvanceEpochResponse response;
    const absl::Status status = caller_.Call(&Stub::AdvanceEpoch, ToRequest(advance), &response, deadline);
    if (status.ok()) {
      const std::lock_guard lock(mutex_);
      last_advance_ = advance;
      member_.set_last_epoch(std::max(member_.last_epoch(), advance.to));
      standing_.epoch = response.epoch().number();
      standing_.in_epoch = true;
      return std::move(*response.mutable_epoch());
    }
    if (!absl::IsNotFound(status)) return WithMembers(status);
    COHORT_RETURN_IF_ERROR(JoinOnce(policy::kTryTimeout));
  }
}

}  // namespace cohort::cluster
