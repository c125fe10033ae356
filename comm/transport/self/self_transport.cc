#include "comm/transport/self/self_transport.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "comm/policy.h"
#include "comm/transport/shm/policy.h"

namespace cohort::comm {

int64_t SelfTransport::MaxSleepNanos() const { return policy::kMaxSleepNanos; }

void SelfTransport::Send(SendRequest& send) {
  send.slot = next_slot_++;
  if (next_slot_ == 0) next_slot_ = 1;
  waiting_.push_back(&send);
  MessageHeader header{send.key, send.signature, send.bytes, send.slot, 0, 0};
  header.address = reinterpret_cast<uintptr_t>(send.data);
  events_->OnAnnouncement(*this, rank_, header);
}

SendRequest* SelfTransport::TakeWaiting(uint32_t slot) {
  const auto at = std::find_if(waiting_.begin(), waiting_.end(),
                               [&](const SendRequest* send) { return send->slot == slot; });
  if (at == waiting_.end()) return nullptr;
  SendRequest* send = *at;
  waiting_.erase(at);
  return send;
}

void SelfTransport::Accept(RecvRequest& recv, const MessageHeader& header) {
  SendRequest* send = TakeWaiting(header.slot);
  if (send == nullptr) {
    recv.owner->OnRequestDone(recv.token,
                              absl::UnavailableError(absl::StrCat("rank ", rank_, " withdrew a send")));
    return;
  }
  if (send->layout == nullptr) {
    recv.Deliver(send->data, 0, send->bytes);
  } else {
    std::byte packed[policy::kShmFragmentBytes];
    for (size_t at = 0; at < send->bytes; at += sizeof(packed)) {
      const size_t bytes = std::min(sizeof(packed), send->bytes - at);
      send->Fetch(at, bytes, packed);
      recv.Deliver(packed, at, bytes);
    }
  }
  send->owner->OnRequestDone(send->token, absl::OkStatus());
  recv.owner->OnRequestDone(recv.token, absl::OkStatus());
}

void SelfTransport::Reply(int peer, const MessageHeader& header, Answer answer) {
  SendRequest* send = TakeWaiting(header.slot);
  if (send == nullptr) return;
  send->owner->OnRequestDone(send->token,
                             answer == Answer::kTaken
                                 ? absl::OkStatus()
                                 : absl::InvalidArgumentError("a receive of another size took it"));
}

}  // namespace cohort::comm
