#include "runtime/elastic/coordinator/caller.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/elastic/coordinator/cluster_service.h"

namespace cohort::cluster {

Caller::Caller(const std::string& address) : address_(address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(policy::kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(policy::kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);  // it is a machine of the cluster
  // A coordinator that is back is found soon. The least is what one attempt may take.
  const auto milliseconds = [](absl::Duration time) {
    return static_cast<int>(absl::ToInt64Milliseconds(time));
  };
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, milliseconds(policy::kFirstPause));
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, milliseconds(policy::kTryTimeout));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, milliseconds(policy::kLongestPause));
  channel_ = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  stub_ = v1::Cluster::NewStub(channel_);
}

bool Caller::IsAway(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

absl::Duration Caller::NextPause(absl::Duration pause) { return std::min(2 * pause, policy::kLongestPause); }

absl::Status Caller::Away(const absl::Status& last) const {
  const std::lock_guard lock(mutex_);
  return absl::UnavailableError(absl::StrCat("no coordinator answers at ", address_, " (",
                                             cause_.empty() ? std::string(last.message()) : cause_, ")"));
}

bool Caller::Enter(grpc::ClientContext& context) {
  if (!reachable_ && tried_) {
    // The call goes as soon as there is a connection: one that is made between two calls may be gone with the next.
    context.set_wait_for_ready(true);
    grpc::experimental::ChannelResetConnectionBackoff(channel_.get());
  }
  const std::lock_guard lock(mutex_);
  if (!ended_) under_way_.insert(&context);
  return !ended_;
}

absl::Status Caller::Leave(grpc::ClientContext& context, const grpc::Status& wire, absl::Duration timeout) {
  absl::Status status = FromWire(wire);
  const std::lock_guard lock(mutex_);
  under_way_.erase(&context);
  if (ended_) return status;
  // A server that shuts down cancels what it has not answered.
  if (absl::IsCancelled(status)) status = absl::UnavailableError("the call was cut off");
  if (absl::IsDeadlineExceeded(status) && timeout < policy::kTellingTimeout) return status;
  reachable_ = !IsAway(status);
  tried_ = true;
  // A call that waits for a connection ends with its time, and says no more why there is none.
  if (absl::IsUnavailable(status)) cause_ = std::string(status.message());
  if (reachable_) {
    cause_.clear();
    if (said_away_) spdlog::info("the coordinator at {} is back", address_);
    said_away_ = false;
    reached_ = true;
  } else if (!said_away_) {
    const std::string why(status.message());
    if (reached_) {
      spdlog::warn("the coordinator at {} is away ({}); going on without it", address_, why);
    } else {
      spdlog::warn("no coordinator answers at {} yet ({}); trying again", address_, why);
    }
    said_away_ = true;
  }
  return status;
}

void Caller::End() {
  const std::lock_guard lock(mutex_);
  ended_ = true;
  for (grpc::ClientContext* context : under_way_) context->TryCancel();
}

}  // namespace cohort::cluster
