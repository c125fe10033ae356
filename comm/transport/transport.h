// What a transport does for the engine: it moves messages between this rank and the peers it reaches.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "comm/transport/message.h"

namespace cohort::comm {

class Transport;

// How the body of a message leaves this process.
enum class BodyPath : uint8_t {
  kCopied,  // by copies into the transport's own memory: what lies apart is packed by them
  kRead,    // the receiver reads it here
  kDense,   // from where it is, and it must lie together
};

// The engine's side: where transports deliver what arrives. All calls are made under the engine's lock.
class TransportEvents {
 public:
  virtual ~TransportEvents() = default;
  // A whole small message. `body` is valid during the call.
  virtual void OnMessage(Transport& from, int peer, const MessageHeader& header, const std::byte* body) = 0;
  // A large message that waits at the sender: Accept or Reply later.
  virtual void OnAnnouncement(Transport& from, int peer, const MessageHeader& header) = 0;
  // The peer gave up the operation that `key` belongs to.
  virtual void OnAbort(int peer, const MessageKey& key, const absl::Status& why) = 0;
  // The peer is gone, and everything that it had sent has been delivered. `left`: it closed properly.
  virtual void OnPeerGone(int peer, bool left, absl::string_view how) = 0;
  // The peer has forgotten this rank: it was taken out of the group.
  virtual void OnDismissed(int peer) {}
};

// A peer's latest sign that it is blocked.
struct WaitingSign {
  int64_t when = 0;
  std::vector<int> awaited;  // world ranks
};

// Not thread-safe: the engine calls under its lock. Nothing here blocks.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual absl::string_view name() const = 0;
  virtual BodyPath PathOf(int peer, size_t bytes) const { return BodyPath::kCopied; }

  // Sends, now or when there is room. Ends in OnRequestDone of the owner, perhaps before it returns.
  virtual void Send(SendRequest& send) = 0;
  // Forgets a send that is not done: the owner hears no more of it, its memory is not read any more, or where
  // a peer is just reading, that peer will see the message fail.
  virtual void CancelSend(SendRequest& send) = 0;

  // Puts a whole message, one that has just come or was kept, where `recv` wants it.
  virtual void Deliver(RecvRequest& recv, const MessageHeader& header, const std::byte* body) {
    recv.Deliver(body, 0, header.bytes);
  }
  // Moves the body of an announced message to where `recv` wants it; its owner hears the end.
  virtual void Accept(RecvRequest& recv, const MessageHeader& header) = 0;
  virtual void CancelRecv(RecvRequest& recv) = 0;
  // Answers the sender of a message with header.slot != 0.
  virtual void Reply(int peer, const MessageHeader& header, Answer answer) = 0;

  // Tells the peer that this rank gives up an operation. Best effort.
  virtual void SendAbort(int peer, const MessageKey& key, const absl::Status& why) = 0;

  // Makes one round: delivers what came, moves up to about `budget` bytes. Whether anything moved.
  virtual bool Progress(size_t budget) = 0;
  // Looks for peers that are gone, which costs a system call or more.
  virtual void CheckPeers() = 0;
  // The longest that this rank may sleep on its doorbell before it must call Progress again.
  virtual int64_t MaxSleepNanos() const = 0;

  // Where what comes does not ring the doorbell: a descriptor that becomes readable instead, once Arm has said
  // true since the last Progress. Arm says false where something is already here.
  virtual int EventFd() const { return -1; }
  virtual bool Arm() { return true; }

  // Publishes that this rank has begun operation `sequence` of a group, and asks how far a peer is: nullopt
  // where the transport cannot tell.
  virtual void PublishBegun(uint32_t context, uint32_t sequence) {}
  virtual std::optional<uint32_t> Begun(int peer, uint32_t context) const { return std::nullopt; }
  // Publishes that a caller of this rank is blocked, and by which peers (policy::kAwaitedPublished of them at most);
  // and tells when a peer has last said so, in this host's NowNanos: nullopt where the transport cannot tell.
  virtual void PublishWaiting(int64_t now, absl::Span<const int> awaited) {}
  virtual std::optional<WaitingSign> LastWaiting(int peer) const { return std::nullopt; }

  // The last calls: what was accepted goes out, peers learn that this rank has left.
  virtual void Close() = 0;
};

}  // namespace cohort::comm
