// The UCX transport: ranks of different hosts.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "comm/policy.h"
#include "comm/transport/transport.h"
#include "comm/transport/ucx/frame.h"
#include "comm/transport/ucx/interfaces.h"
#include "comm/transport/ucx/policy.h"
#include "comm/transport/ucx/ucx_port.h"

namespace cohort::comm::ucx {

// Every frame's data are copied to memory of the transport first (ucx_port.h). A large message is announced with its
// first piece; the rest follows piece by piece, so that reductions overlap with the transfer. The receiver clears a
// message when its receive is there. A peer is sent policy::kUcxAheadBytes of messages that it has not cleared, so that
// the link does not idle for that round trip.
class UcxTransport : public Transport, Port<Frame>::Events {
 public:
  static absl::StatusOr<std::unique_ptr<UcxTransport>> Create(int rank, int size, TransportEvents* events);
  ~UcxTransport() override;
  // This rank's number, where it was not known at first (-1): before the first Attach.
  void SetRank(int rank) { rank_ = rank; }
  // What a peer must know to attach, as text of one line.
  std::string Address() const;
  // Reaches a peer by its Address(); its rank may be beyond the size so far. The peer attaches as well, sooner or
  // later: frames for it wait here until its hello says that it has, as frames of strangers are dropped.
  absl::Status Attach(int peer, const std::string& address);
  // Forgets a peer, which may be lost: what was on its way to or from it fails. It can be attached again.
  void Detach(int peer);
  // Where all have attached, and know it: says hello to all attached peers and waits until they have. OK where all can
  // be reached.
  absl::Status Meet(absl::Time deadline);

  absl::string_view name() const override { return "ucx"; }
  void Send(SendRequest& send) override;
  void CancelSend(SendRequest& send) override;
  void Accept(RecvRequest& recv, const MessageHeader& header) override;
  void CancelRecv(RecvRequest& recv) override;
  void Reply(int peer, const MessageHeader& header, Answer answer) override;
  void SendAbort(int peer, const MessageKey& key, const absl::Status& why) override;
  bool Progress(size_t budget) override;
  void CheckPeers() override;
  int64_t MaxSleepNanos() const override { return policy::kMaxSleepNanos; }
  int EventFd() const override { return event_fd_; }
  bool Arm() override;
  void PublishBegun(uint32_t context, uint32_t sequence) override;
  std::optional<uint32_t> Begun(int peer, uint32_t context) const override;
  void PublishWaiting(int64_t now, absl::Span<const int> awaited) override;
  std::optional<WaitingSign> LastWaiting(int peer) const override;
  void Close() override;

 private:
  struct Outbound {  // a body that goes out
    SendRequest* send;
    size_t offset;
    bool cleared;
  };
  using Packet = Port<Frame>::Packet;
  // A pair of interfaces between this rank and a peer.
  struct Rail {
    Port<Frame>::Endpoint* endpoint = nullptr;
    bool heard = false;
    bool buried = false;
    bool ping_in_flight = false;
    size_t unconfirmed = 0;  // bytes
    // Nanoseconds in which this rank listened and heard nothing; and heard nothing as of a peer that hears this rank: a
    // rail of which one way is dead is dead.
    int64_t unheard = 0;
    int64_t silent = 0;
  };
  struct Sent {                      // and not confirmed yet; over several rails
    std::unique_ptr<Packet> packet;  // null: in UCX's hands
    size_t rail = 0;
    size_t bytes = 0;
    bool piece = false;
  };
  struct Early {  // a frame that came before one before it
    Frame frame;
    std::vector<std::byte> data;
  };
  struct Peer {
    int rank = -1;
    uint64_t incarnation = 0;
    std::vector<Rail> rails;
    uint64_t next_sequence = 1;
    std::map<uint64_t, Sent> unconfirmed;
    uint64_t taken_below = 1;
    uint64_t said_below = 1;
    std::map<uint64_t, Early> early;
    int64_t last_hello = 0;
    bool heard = false;                         // it takes frames
    std::vector<std::unique_ptr<Packet>> held;  // until then
    bool gone = false;
    bool left = false;
    std::string how;  // it is gone
    uint64_t frames_in = 0;
    uint64_t frames_out = 0;
    uint64_t last_frame = 0;  // where it has said that it leaves: after so many frames
    bool leaving = false;
    bool said_bye = false;
    int pieces_in_flight = 0;
    std::list<Outbound> outbound;  // bodies with pieces left, in the order of their messages
    // What was sent of messages that are not cleared, beside their first pieces: by slot, and all.
    std::unordered_map<uint32_t, size_t> ahead;
    size_t ahead_bytes = 0;
    int64_t last_ping = 0;
    int64_t board_time = 0;
    std::vector<BoardEntry> board;  // by context % kBoardEntries
    std::optional<WaitingSign> sign;
  };
  struct Inbound {  // a body that comes in
    RecvRequest* recv = nullptr;
    size_t received = 0;
    uint64_t bytes = 0;           // of the whole message
    std::vector<std::byte> kept;  // what came before its receive
    bool complete() const { return kept.size() == bytes; }
  };
  struct Prefix {  // the first bytes of an announced message
    int peer = -1;
    uint32_t slot = 0;
    absl::Span<const std::byte> data;
  };

  UcxTransport(int rank, int size, TransportEvents* events);

  // ucx_frames.cc: frames out and in.
  std::unique_ptr<Packet> NewPacket(FrameType type, size_t data_bytes);
  void Post(Peer& peer, std::unique_ptr<Packet> packet);
  void PostControl(Peer& peer, FrameType type, const Frame& fields, absl::Span<const std::byte> data = {});
  void OnArrival(const Frame& frame, absl::Span<const std::byte> data) override;
  void OnOver(std::unique_ptr<Packet> packet) override;
  void OnBroken(Port<Frame>::Endpoint& endpoint) override;
  void Take(Peer& peer, const Frame& frame, absl::Span<const std::byte> data);
  void Handle(Peer& peer, const Frame& frame, absl::Span<const std::byte> data);

  // ucx_bodies.cc: messages, small and large.
  absl::Status Reach(int rank) const;
  void OnAnnouncement(Peer& peer, const Frame& frame, absl::Span<const std::byte> data);
  void OnAnswer(Peer& peer, const Frame& frame);
  void OnPiece(Peer& peer, const Frame& frame, absl::Span<const std::byte> data);
  bool PushBodies();
  // Over several rails those that are not confirmed count, too.
  static int PiecesInFlight(const Peer& peer) {
    const int rails = static_cast<int>(peer.rails.size());
    return policy::kUcxPiecesInFlight * (rails == 1 ? 1 : 2 * rails);
  }
  bool PushPiece(Peer& peer);

  void WaitForEvent(int64_t nanos);

  // ucx_rails.cc: frames over several rails, in order and once.
  void PostOn(Peer& peer, size_t rail, std::unique_ptr<Packet> packet);
  void PostProbe(Peer& peer, size_t rail, FrameType type, const Frame& fields = {},
                 absl::Span<const std::byte> data = {});
  static size_t ChooseRail(const Peer& peer);
  void TakeInOrder(Peer& peer, const Frame& frame, absl::Span<const std::byte> data);
  void Confirm(Peer& peer, uint64_t below);
  void SendAgain(Peer& peer, size_t rail);
  bool BuryRails(Peer& peer, std::string* how);

  // ucx_peers.cc: signs of life, and peers that are lost or leave.
  void LookForSilence();
  bool BuryPeers();
  void Gone(Peer& peer, bool left, std::string how);
  void EndEndpoints(Peer& peer, const std::string& why);
  void FailRequests(Peer& peer);
  void DropBodies(const Peer& peer);
  void SayHello(Peer& peer, size_t rail, bool asks);
  void Greet(Peer& peer, int64_t now);
  void SendPong(Peer& peer, uint8_t rail);
  void OnPong(Peer& peer, const Frame& frame, absl::Span<const std::byte> data);

  int rank_;
  const uint64_t incarnation_;
  const int64_t silence_;
  TransportEvents* const events_;
  std::vector<Interface> interfaces_;
  std::vector<std::unique_ptr<Port<Frame>>> ports_;  // one for each
  int event_fd_ = -1;                                // of the only port, or of an epoll of all
  bool owns_event_fd_ = false;
  std::vector<std::unique_ptr<Peer>> peers_;   // by rank; null where not attached
  std::vector<std::unique_ptr<Peer>> former_;  // UCX may still speak of them

  std::unordered_map<uint32_t, SendRequest*> waiting_;  // announced or to be confirmed, by slot
  uint32_t next_slot_ = 1;
  std::set<int> sending_;                          // peers with outbound bodies
  std::unordered_map<uint64_t, Inbound> inbound_;  // by rank << 32 | the sender's slot
  Prefix arriving_;                                // while its announcement is delivered

  std::vector<BoardEntry> board_;
  std::optional<WaitingSign> sign_;
  int64_t last_look_ = 0;
  bool trouble_ = false;  // some peer is broken or has said that it leaves
  bool closed_ = false;   // nobody listens any more
};

}  // namespace cohort::comm::ucx
