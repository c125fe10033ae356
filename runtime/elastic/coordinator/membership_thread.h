// The part of a client that is a member: a thread that renews its lease and carries what it was told.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/v1/cluster.pb.h"
#include "runtime/elastic/coordinator/caller.h"
#include "runtime/elastic/coordinator/client.h"

namespace cohort::cluster {

// Thread-safe. Nothing but Join, AdvanceEpoch and Flush waits for the coordinator.
class MembershipThread {
 public:
  // `caller` must outlive it.
  MembershipThread(Caller& caller, v1::JoinRequest member) : caller_(caller), member_(std::move(member)) {}
  ~MembershipThread() { Stop(); }

  const std::string& name() const { return member_.name(); }
  absl::Status Join(absl::Time deadline);
  // Ends the thread; may be called again.
  void Stop();
  Standing standing() const;
  void SetReport(const v1::StepReport& report);
  // Before Join.
  void SetPhase(std::function<std::string()> phase) { phase_ = std::move(phase); }
  void Tell(v1::ReportRequest report);
  void RecordEpoch(const EpochAdvance& advance);
  bool Flush(absl::Time deadline);
  absl::StatusOr<v1::Epoch> AdvanceEpoch(const EpochAdvance& advance, absl::Time deadline);

 private:
  void Run();
  // Whether the coordinator was there.
  bool Renew();
  // Whether what was sent is to be sent again with the next renewal.
  bool NotTaken(const absl::Status& status);
  // What the coordinator has answered, to a renewal that went off then. Under the lock.
  void Take(const v1::RenewResponse& response, std::chrono::steady_clock::time_point sent);
  // Both stop at the first that the coordinator has not taken.
  void SendTold();
  void SendEpochs();
  absl::Status JoinOnce(absl::Duration timeout);
  void Joined(const v1::JoinResponse& response);
  // This member is out: under the lock.
  void Evicted(const std::string& why);
  v1::AdvanceEpochRequest ToRequest(const EpochAdvance& advance) const;
  // The whole present epoch in a refusal, where its details had no room for the members.
  absl::Status WithMembers(absl::Status refusal);
  int64_t id() const;

  Caller& caller_;
  v1::JoinRequest member_;  // last_epoch changes, under the lock
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Standing standing_;
  absl::Duration lease_ = policy::kLease;
  absl::Duration soonest_ = policy::kSoonestRenewal;
  std::optional<v1::StepReport> report_;
  bool soon_ = false;             // it tells of an unusual step
  std::vector<int64_t> look_at_;  // processes, asked for by the last answer; of the thread
  std::function<std::string()> phase_;
  uint64_t sequence_ = 0;
  std::deque<v1::ReportRequest> told_;
  std::deque<EpochAdvance> epochs_;           // to be told, the oldest first
  std::optional<EpochAdvance> last_advance_;  // for a coordinator that has forgotten it
  std::string complaint_;                     // the last refusal, which is said once
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace cohort::cluster
