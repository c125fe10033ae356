#include "runtime/elastic/coordinator/client.h"

#include <unistd.h>

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/topology.h"
#include "runtime/elastic/coordinator/caller.h"
#include "runtime/elastic/coordinator/cluster_state.h"
#include "runtime/elastic/coordinator/membership_thread.h"

namespace cohort::cluster {
namespace {

using Stub = v1::Cluster::Stub;

std::string HostName() {
  char name[256] = {};
  gethostname(name, sizeof(name) - 1);
  return name;
}

}  // namespace

std::string RandomId() {
  std::random_device device;
  return absl::StrFormat("%08x%08x", device(), device());
}

std::optional<v1::Epoch> PresentEpoch(const absl::Status& status) {
  const auto payload = status.GetPayload(kEpochPayload);
  v1::Epoch epoch;
  if (!payload.has_value() || !epoch.ParseFromString(std::string(*payload))) return std::nullopt;
  return epoch;
}

struct Client::State {
  explicit State(const std::string& address) : caller(address) {}

  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                const Request& request, absl::Time deadline) {
    Response response;
    COHORT_RETURN_IF_ERROR(caller.Call(method, request, &response, deadline));
    return response;
  }

  Caller caller;
  std::unique_ptr<MembershipThread> membership;
};

absl::StatusOr<std::unique_ptr<Client>> Client::Create(const ClientOptions& options) {
  const size_t colon = options.coordinator.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == options.coordinator.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", options.coordinator, "' is no address of a coordinator; write HOST:PORT"));
  }
  auto state = std::make_unique<State>(options.coordinator);
  v1::JoinRequest member;
  const std::string host = HostName();
  member.set_job(options.job);
  member.set_name(options.name.empty() ? absl::StrCat(host, "-", getpid(), "-", RandomId().substr(0, 6))
                                       : options.name);
  member.set_session(RandomId());
  member.set_host(host);
  member.set_host_id(comm::HostIdentity());
  member.set_pid(getpid());
  member.set_address(options.address);
  member.set_role(options.role);
  member.set_launch_id(options.launch_id);
  member.set_launch_rank(options.launch_rank);
  member.set_launch_size(options.launch_size);
  member.set_version(options.version);
  state->membership = std::make_unique<MembershipThread>(state->caller, std::move(member));
  return std::unique_ptr<Client>(new Client(std::move(state)));
}

Client::Client(std::unique_ptr<State> state) : state_(std::move(state)) {}

Client::~Client() {
  state_->caller.End();
  state_->membership->Stop();
}

const std::string& Client::name() const { return state_->membership->name(); }
absl::Status Client::Join(absl::Time deadline) { return state_->membership->Join(deadline); }
Standing Client::standing() const { return state_->membership->standing(); }
void Client::SetReport(const v1::StepReport& report) { state_->membership->SetReport(report); }
void Client::SetPhase(std::function<std::string()> phase) { state_->membership->SetPhase(std::move(phase)); }
bool Client::Flush(absl::Time deadline) { return state_->membership->Flush(deadline); }
void Client::RecordEpoch(const EpochAdvance& advance) { state_->membership->RecordEpoch(advance); }

absl::Status Client::Leave(const std::string& reason, absl::Time deadline) {
  const int64_t id = state_->membership->standing().member_id;
  state_->membership->Stop();
  if (id == 0) return absl::OkStatus();
  v1::LeaveRequest request;
  request.set_member_id(id);
  request.set_reason(reason);
  return state_->Call(&Stub::Leave, request, deadline).status();
}

void Client::Tell(v1::EventKind kind, int64_t step, const std::string& words, double seconds,
                  const std::string& subject) {
  v1::ReportRequest report;
  report.set_kind(kind);
  report.set_step(step);
  report.set_words(words);
  report.set_seconds(seconds);
  report.set_subject(subject);
  state_->membership->Tell(std::move(report));
}

absl::StatusOr<v1::Epoch> Client::AdvanceEpoch(const EpochAdvance& advance, absl::Time deadline) {
  return state_->membership->AdvanceEpoch(advance, deadline);
}

absl::StatusOr<v1::TieResponse> Client::Tie(uint64_t after, const std::vector<std::string>& half,
                                            absl::Time deadline) {
  v1::TieRequest request;
  request.set_member_id(standing().member_id);
  request.set_after(after);
  request.mutable_half()->Add(half.begin(), half.end());
  return state_->Call(&Stub::Tie, request, deadline);
}

absl::Status Client::BoardPost(const std::string& name, const std::string& text, absl::Time deadline) {
  v1::BoardPostRequest request;
  request.set_name(name);
  request.set_text(text);
  request.set_member_id(standing().member_id);
  return state_->Call(&Stub::BoardPost, request, deadline).status();
}

absl::Status Client::BoardWithdraw(const std::string& name, absl::Time deadline) {
  v1::BoardWithdrawRequest request;
  request.set_name(name);
  return state_->Call(&Stub::BoardWithdraw, request, deadline).status();
}

absl::StatusOr<std::optional<std::string>> Client::BoardAnswered(const std::string& name, absl::Duration wait,
                                                                 absl::Time deadline) {
  v1::BoardAnsweredRequest request;
  request.set_name(name);
  request.set_wait_seconds(
      absl::ToDoubleSeconds(std::clamp(wait, absl::ZeroDuration(), policy::kLongestWait)));
  v1::BoardAnsweredResponse response;
  COHORT_RETURN_IF_ERROR(state_->caller.Call(&Stub::BoardAnswered, request, &response, deadline,
                                             std::min(wait, policy::kLongestWait) + policy::kTryTimeout));
  if (!response.has_answer()) return std::nullopt;
  return response.answer();
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Client::BoardWaiting(absl::Time deadline) {
  COHORT_ASSIGN_OR_RETURN(const auto response,
                          state_->Call(&Stub::BoardWaiting, v1::BoardWaitingRequest(), deadline));
  std::vector<std::pair<std::string, std::string>> posts;
  for (const v1::BoardPosting& post : response.posts()) posts.emplace_back(post.name(), post.text());
  return posts;
}

absl::Status Client::BoardAnswer(const std::string& name, const std::string& text, absl::Time deadline) {
  v1::BoardAnswerRequest request;
  request.set_name(name);
  request.set_text(text);
  return state_->Call(&Stub::BoardAnswer, request, deadline).status();
}

absl::Status Client::Put(const std::string& launch_id, const std::string& key, const std::string& value,
                         absl::Time deadline) {
  v1::RendezvousPutRequest request;
  request.set_launch_id(launch_id);
  request.set_key(key);
  request.set_value(value);
  return state_->Call(&Stub::RendezvousPut, request, deadline).status();
}

absl::StatusOr<std::string> Client::Get(const std::string& launch_id, const std::string& key,
                                        absl::Time deadline) {
  v1::RendezvousGetRequest request;
  request.set_launch_id(launch_id);
  request.set_key(key);
  for (;;) {
    const absl::Duration wait = std::clamp(deadline - absl::Now(), absl::ZeroDuration(), policy::kTryTimeout);
    request.set_wait_seconds(absl::ToDoubleSeconds(wait));
    v1::RendezvousGetResponse response;
    // A last look where the time is over, and time for the way there and back.
    const absl::Status status =
        state_->caller.Call(&Stub::RendezvousGet, request, &response,
                            std::max(deadline, absl::Now() + policy::kFirstPause) + policy::kFirstPause,
                            wait + policy::kTryTimeout);
    if (status.ok() && response.has_value()) return std::move(*response.mutable_value());
    if (!status.ok() && !Caller::IsAway(status)) return status;
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat("nobody of the launch ", launch_id, " wrote ", key,
                                                      " to the coordinator in time", status.ok() ? "" : ": ",
                                                      status.message()));
    }
  }
}

absl::StatusOr<v1::DescribeResponse> Client::Describe(int events, absl::Time deadline) {
  v1::DescribeRequest request;
  request.set_events(events);
  return state_->Call(&Stub::Describe, request, deadline);
}

absl::Status Client::RequestLeave(const std::string& name, const std::string& reason, absl::Time deadline) {
  v1::RequestLeaveRequest request;
  request.set_name(name);
  request.set_reason(reason);
  return state_->Call(&Stub::RequestLeave, request, deadline).status();
}

absl::Status Client::WatchEvents(uint64_t from_revision, absl::Time deadline,
                                 const std::function<bool(const v1::Event&)>& on_event) {
  v1::WatchEventsRequest request;
  request.set_from_revision(from_revision);
  for (absl::Duration pause = policy::kFirstPause;;) {
    grpc::ClientContext context;
    if (deadline != absl::InfiniteFuture()) context.set_deadline(absl::ToChronoTime(deadline));
    if (!state_->caller.Enter(context)) return absl::CancelledError("the client is ending");
    const auto reader = state_->caller.stub().WatchEvents(&context, request);
    v1::Event event;
    bool more = true;
    while (more && reader->Read(&event)) {
      pause = policy::kFirstPause;
      request.set_from_revision(event.revision() + 1);
      more = on_event(event);
    }
    if (!more) context.TryCancel();
    const grpc::Status end = reader->Finish();
    const bool over = absl::Now() >= deadline;
    const absl::Status status = state_->caller.Leave(context, more && !over ? end : grpc::Status::OK);
    if (!more) return absl::OkStatus();
    if (over) return absl::DeadlineExceededError("watched until the deadline");
    if (!Caller::IsAway(status)) return status;
    absl::SleepFor(std::min(pause, deadline - absl::Now()));
    pause = Caller::NextPause(pause);
  }
}

}  // namespace cohort::cluster
