#include "runtime/elastic/coordinator/cluster_service.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/elastic/coordinator/policy.h"

namespace cohort::cluster {
namespace {

using Unary = grpc::ServerUnaryReactor;

// Whether a variant can be a T.
template <typename T, typename... Each>
constexpr bool Has(const std::variant<Each...>*) {
  return (std::is_same_v<T, Each> || ...);
}

// Submits a command; the answer is the outcome's, of which `response` gets the part that it has.
template <typename Response>
Unary* Answer(grpc::CallbackServerContext* context, Ledger& ledger, v1::ClusterCommand command,
              Response* response) {
  Unary* reactor = context->DefaultReactor();
  ledger.Submit(std::move(command), [reactor, response](Outcome& outcome) {
    if constexpr (Has<Response>(static_cast<decltype(Outcome::reply)*>(nullptr))) {
      if (outcome.status.ok()) *response = std::move(std::get<Response>(outcome.reply));
    }
    reactor->Finish(ToWire(outcome.status));
  });
  return reactor;
}

// Fills the response from the state.
template <typename Fill>
Unary* Look(grpc::CallbackServerContext* context, Ledger& ledger, Fill fill) {
  Unary* reactor = context->DefaultReactor();
  ledger.Read([reactor, fill](const absl::Status& usable, const ClusterState& state, absl::Time now) {
    if (usable.ok()) fill(state, now);
    reactor->Finish(ToWire(usable));
  });
  return reactor;
}

// Waits until `fill` finds what it looks for in the state; that it is not there in time is an answer too.
template <typename Fill>
Unary* WaitFor(grpc::CallbackServerContext* context, Ledger& ledger, double seconds, Fill fill) {
  Unary* reactor = context->DefaultReactor();
  if (!std::isfinite(seconds) || seconds < 0) {
    reactor->Finish(ToWire(absl::InvalidArgumentError("wait_seconds must be 0 or more")));
    return reactor;
  }
  ledger.Wait(
      absl::Now() + std::min(absl::Seconds(seconds), policy::kLongestWait),
      [reactor, fill](const ClusterState& state) {
        const bool found = fill(state);
        if (found) reactor->Finish(grpc::Status::OK);
        return found;
      },
      [reactor](const absl::Status& why) {
        reactor->Finish(absl::IsDeadlineExceeded(why) ? grpc::Status::OK : ToWire(why));
      });
  return reactor;
}

// Shared by gRPC's reactor, which sends, and the ledger's thread, which brings events; the reactor may go first.
// gRPC never runs a reaction inside a call that starts an operation, so calling it under the lock is safe.
class Watching : public std::enable_shared_from_this<Watching> {
 public:
  class Reactor final : public grpc::ServerWriteReactor<v1::Event> {
   public:
    explicit Reactor(std::shared_ptr<Watching> watching) : watching_(std::move(watching)) {}
    void OnWriteDone(bool ok) override { watching_->OnWriteDone(ok); }
    void OnCancel() override { watching_->End(absl::CancelledError("the client has gone")); }
    void OnDone() override { delete this; }

   private:
    const std::shared_ptr<Watching> watching_;
  };

  Watching(Ledger& ledger, uint64_t from) : ledger_(ledger), from_(from) {}

  void Begin(Reactor* reactor) {
    reactor_ = reactor;
    ledger_.Read(
        [self = shared_from_this()](const absl::Status& usable, const ClusterState& state, absl::Time) {
          if (!usable.ok()) return self->End(usable);
          // From a state that is no more: whatever this one has is new to the client.
          if (self->from_ > state.last_revision() + 1) self->from_ = 0;
          if (!self->Take(state)) self->WaitForMore();
        });
  }

 private:
  // In the ledger's thread. True: there was something, or nobody wants it any more.
  bool Take(const ClusterState& state) {
    const std::lock_guard lock(mutex_);
    if (reactor_ == nullptr) return true;
    if (state.last_revision() < from_ || state.last_revision() == 0) return false;
    for (v1::Event& event : state.EventsFrom(from_)) pending_.push_back(std::move(event));
    from_ = state.last_revision() + 1;
    Advance();
    return true;
  }

  void WaitForMore() {
    ledger_.Wait(
        absl::InfiniteFuture(),
        [self = shared_from_this()](const ClusterState& state) { return self->Take(state); },
        [self = shared_from_this()](const absl::Status& why) { self->End(why); });
  }

  void OnWriteDone(bool ok) {
    bool more = false;
    {
      const std::lock_guard lock(mutex_);
      writing_ = false;
      if (ok) {
        pending_.pop_front();
        more = pending_.empty() && reactor_ != nullptr && !ended_;
      }
      Advance();
    }
    if (more) WaitForMore();
  }

  void End(const absl::Status& why) {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    why_ = why;
    Advance();
  }

  // Under the lock. The reactor lives until Finish, which waits for the last write.
  void Advance() {
    if (reactor_ == nullptr || writing_) return;
    if (ended_) {
      std::exchange(reactor_, nullptr)->Finish(ToWire(why_));
    } else if (!pending_.empty()) {
      writing_ = true;
      reactor_->StartWrite(&pending_.front());
    }
  }

  Ledger& ledger_;
  uint64_t from_;
  std::mutex mutex_;
  Reactor* reactor_ = nullptr;
  std::deque<v1::Event> pending_;
  bool writing_ = false, ended_ = false;
  absl::Status why_;
};

}  // namespace

grpc::Status ToWire(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  v1::ErrorDetails details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));
  status.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) {
    std::string bytes(payload);
    if (type == kEpochPayload && bytes.size() > policy::kMaxDetailsBytes) {
      v1::Epoch epoch;
      epoch.ParseFromString(bytes);
      epoch.clear_members();
      epoch.clear_why();
      bytes = epoch.SerializeAsString();
    }
    v1::ErrorDetails::Any& any = *details.add_details();
    any.set_type_url(std::string(type));
    any.set_value(std::move(bytes));
  });
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
          details.details().empty() ? std::string() : details.SerializeAsString()};
}

absl::Status FromWire(const grpc::Status& status) {
  absl::Status back(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  v1::ErrorDetails details;
  if (!status.error_details().empty() && details.ParseFromString(status.error_details())) {
    for (const v1::ErrorDetails::Any& any : details.details()) {
      back.SetPayload(any.type_url(), absl::Cord(any.value()));
    }
  }
  return back;
}

Unary* ClusterService::Join(Context* context, const v1::JoinRequest* request, v1::JoinResponse* response) {
  v1::ClusterCommand command;
  *command.mutable_join() = *request;
  return Answer(context, ledger_, std::move(command), response);
}

Unary* ClusterService::Leave(Context* context, const v1::LeaveRequest* request, v1::LeaveResponse* response) {
  v1::ClusterCommand command;
  *command.mutable_leave() = *request;
  return Answer(context, ledger_, std::move(command), response);
}

Unary* ClusterService::Renew(Context* context, const v1::RenewRequest* request, v1::RenewResponse* response) {
  v1::ClusterCommand command;
  *command.mutable_renew() = *request;
  return Answer(context, ledger_, std::move(command), response);
}

Unary* ClusterService::RequestLeave(Context* context, const v1::RequestLeaveRequest* request,
                                    v1::RequestLeaveResponse* response) {
  v1::ClusterCommand command;
  *command.mutable_request_leave() = *request;
  return Answer(context, ledger_, std::move(command), response);
}

Unary* ClusterService::AdvanceEpoch(Context* context, const v1::AdvanceEpochRequest* request,
                                    v1::AdvanceEpochResponse* response) {
  v1::ClusterCommand command;
  *command.mutable_advance_epoch() = *request;
  return Answer(context, ledger_, std::move(command), response);
}

Unary* ClusterService::GetEpoch(Context* context, const v1::GetEpochRequest*, v1::Epoch* response) {
  return Look(context, ledger_,
              [response](const ClusterState& state, absl::Time) { *response = state.epoch(); });
}

Unary* ClusterService::Tie(Context* context, const v1::TieRequest* request, v1::TieResponse* response) {
  v1::ClusterCommand command;
  *command.mutable_tie() = *request;
  return Answer(context, ledger_, std::move(command), response);
}

Unary* ClusterService::BoardPost(Context* context, const v1::BoardPostRequest* request,
                                 v1::BoardPostResponse* response) {
  v1::ClusterCommand command;
  *command.mutable_board_post() = *request;
  return Answer(context, ledger_, std::move(command), response);
}

Unary* ClusterService::BoardWithdraw(Context* context, const v1::BoardWithdrawRequest* request,
                                     v1::BoardWithdrawResponse* response) {
  v1::ClusterCommand command;
  *command.mutable_board_withdraw() = *request;
  return Answer(context, ledger_, std::move(command), response);
}

Unary* ClusterService::BoardAnswered(Context* context, const v1::BoardAnsweredRequest* request,
                                     v1::BoardAnsweredResponse* response) {
  return WaitFor(context, ledger_, request->wait_seconds(),
                 [response, name = request->name()](const ClusterState& state) {
                   const std::string* answer = state.Answered(name);
                   if (answer != nullptr) response->set_answer(*answer);
                   return answer != nullptr;
                 });
}

Unary* ClusterService::BoardWaiting(Context* context, const v1::BoardWaitingRequest*,
                                    v1::BoardWaitingResponse* response) {
  return Look(context, ledger_,
              [response](const ClusterState& state, absl::Time) { *response = state.Waiting(); });
}

Unary* ClusterService::BoardAnswer(Context* context, const v1::BoardAnswerRequest* request,
                                   v1::BoardAnswerResponse* response) {
  v1::ClusterCommand command;
  *command.mutable_board_answer() = *request;
  return Answer(context, ledger_, std::move(command), response);
}

Unary* ClusterService::RendezvousPut(Context* context, const v1::RendezvousPutRequest* request,
                                     v1::RendezvousPutResponse* response) {
  v1::ClusterCommand command;
  *command.mutable_rendezvous_put() = *request;
  return Answer(context, ledger_, std::move(command), response);
}

Unary* ClusterService::RendezvousGet(Context* context, const v1::RendezvousGetRequest* request,
                                     v1::RendezvousGetResponse* response) {
  return WaitFor(context, ledger_, request->wait_seconds(),
                 [response, launch = request->launch_id(), key = request->key()](const ClusterState& state) {
                   const std::string* value = state.Value(launch, key);
                   if (value != nullptr) response->set_value(*value);
                   return value != nullptr;
                 });
}

Unary* ClusterService::Report(Context* context, const v1::ReportRequest* request,
                              v1::ReportResponse* response) {
  v1::ClusterCommand command;
  *command.mutable_report() = *request;
  return Answer(context, ledger_, std::move(command), response);
}

grpc::ServerWriteReactor<v1::Event>* ClusterService::WatchEvents(Context*,
                                                                 const v1::WatchEventsRequest* request) {
  auto watching = std::make_shared<Watching>(ledger_, request->from_revision());
  auto* reactor = new Watching::Reactor(watching);
  watching->Begin(reactor);
  return reactor;
}

Unary* ClusterService::Describe(Context* context, const v1::DescribeRequest* request,
                                v1::DescribeResponse* response) {
  return Look(context, ledger_,
              [response, events = request->events()](const ClusterState& state, absl::Time now) {
                *response = state.Describe(events, now);
              });
}

}  // namespace cohort::cluster
