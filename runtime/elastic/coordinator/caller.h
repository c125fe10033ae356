// Calls of the coordinator's service that go on trying while it is away.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cohort/v1/cluster.grpc.pb.h"
#include "runtime/elastic/coordinator/policy.h"

namespace cohort::cluster {

// One connection. Thread-safe.
class Caller {
 public:
  explicit Caller(const std::string& address);

  // One try, of at most `timeout`.
  template <typename Request, typename Response>
  absl::Status Try(grpc::Status (v1::Cluster::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                   const Request& request, Response* response, absl::Duration timeout) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    if (!Enter(context)) return absl::CancelledError("the client is ending");
    const grpc::Status status = (stub_.get()->*method)(&context, request, response);
    return Leave(context, status, timeout);
  }

  // Until the coordinator has answered or the deadline is over: UNAVAILABLE then.
  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (v1::Cluster::Stub::*method)(grpc::ClientContext*, const Request&,
                                                              Response*),
                    const Request& request, Response* response, absl::Time deadline,
                    absl::Duration try_timeout = policy::kTryTimeout) {
    absl::Status last = absl::UnavailableError("no time was left");
    for (absl::Duration pause = policy::kFirstPause;; pause = NextPause(pause)) {
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration()) return Away(last);
      last = Try(method, request, response, std::min(left, try_timeout));
      if (!IsAway(last)) return last;
      if (absl::Now() + pause >= deadline) return Away(last);
      absl::SleepFor(pause);
    }
  }

  // A stream's context, to be cancelled when this ends. False: it has.
  bool Enter(grpc::ClientContext& context);
  // The call has ended: notes whether the coordinator was there, which one that had little time does not tell.
  absl::Status Leave(grpc::ClientContext& context, const grpc::Status& status,
                     absl::Duration timeout = absl::InfiniteDuration());
  // Ends what is under way, and everything from now on: CANCELLED.
  void End();

  // Whether the last call reached the coordinator.
  bool reachable() const { return reachable_; }
  v1::Cluster::Stub& stub() { return *stub_; }

  // Whether a status means that no coordinator has answered, so that it is to be tried again.
  static bool IsAway(const absl::Status& status);
  static absl::Duration NextPause(absl::Duration pause);
  // UNAVAILABLE, with the address.
  absl::Status Away(const absl::Status& last) const;

 private:
  const std::string address_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Cluster::Stub> stub_;
  mutable std::mutex mutex_;
  std::set<grpc::ClientContext*> under_way_;
  bool ended_ = false;
  bool reached_ = false;    // ever
  bool said_away_ = false;  // the log knows that it is away
  std::string cause_;       // why there is no connection; empty where there is one
  std::atomic<bool> reachable_ = false;
  std::atomic<bool> tried_ = false;
};

}  // namespace cohort::cluster
