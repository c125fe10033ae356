// The UCX transport: ranks of different hosts.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "comm/policy.h"
#include "comm/transport/transport.h"
#include "comm/transport/ucx/frame.h"
#include "comm/transport/ucx/ucx_worker.h"

namespace cohort::comm::ucx {

// The number of the only active message.
inline constexpr unsigned kActiveMessage = 1;

// Every frame is an eager active message, whose header and data are copied to memory of the transport first: so
// UCX never holds a pointer into a buffer of the caller's, and any operation can be given up at any time, also
// while its peer is stopped. A large message is announced with its first piece; the rest is sent when the
// receiver clears it, piece by piece, so that reductions overlap with the transfer.
class UcxTransport : public Transport {
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
  // Waits until all attached peers have said hello: OK where all can be reached.
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
  int EventFd() const override { return worker_->event_fd(); }
  bool Arm() override;
  void PublishBegun(uint32_t context, uint32_t sequence) override;
  std::optional<uint32_t> Begun(int peer, uint32_t context) const override;
  void PublishWaiting(int64_t now, absl::Span<const int> awaited) override;
  std::optional<WaitingSign> LastWaiting(int peer) const override;
  void Close() override;

 private:
  struct Packet;
  struct Peer {
    UcxTransport* owner = nullptr;
    int rank = -1;
    uint64_t incarnation = 0;
    std::string address;  // of its worker
    ucp_ep_h endpoint = nullptr;
    bool greeted = false;    // the higher rank: has a hello of the other, and may connect
    int64_t last_hello = 0;
    bool heard = false;                         // it takes frames
    std::vector<std::unique_ptr<Packet>> held;  // until then
    bool gone = false;
    bool left = false;
    std::string how;     // it is gone
    std::string broken;  // what UCX said of the endpoint: to be dealt with outside of its callbacks
    uint64_t frames_in = 0;
    uint64_t frames_out = 0;
    uint64_t last_frame = 0;  // where it has said that it leaves: after so many frames
    bool leaving = false;
    bool said_bye = false;
    int pieces_in_flight = 0;
    bool ping_in_flight = false;
    int64_t last_ping = 0;
    // Nanoseconds in which this rank listened and heard nothing of it; and heard nothing of it as of a peer that hears
    // this rank: a connection of which one way is dead is dead.
    int64_t unheard = 0;
    int64_t silent = 0;
    int64_t board_time = 0;
    std::vector<BoardEntry> board;  // by context % kBoardEntries
    std::optional<WaitingSign> sign;
  };
  // A frame in UCX's hands.
  struct Packet {
    UcxTransport* owner = nullptr;
    Peer* peer = nullptr;
    Frame frame;
    std::unique_ptr<std::byte[]> data;
    size_t capacity = 0;
    size_t bytes = 0;
    std::list<std::unique_ptr<Packet>>::iterator place;
  };
  struct Outbound {  // a cleared body
    SendRequest* send;
    uint64_t transfer;
    size_t offset;
  };
  struct Inbound {  // an accepted body
    RecvRequest* recv;
    size_t received;
  };
  struct Prefix {  // the first bytes of an announced message
    int peer = -1;
    uint32_t slot = 0;
    const std::byte* data = nullptr;
    size_t bytes = 0;
  };

  UcxTransport(int rank, int size, TransportEvents* events, std::unique_ptr<Worker> worker);

  // ucx_frames.cc: frames out and in.
  std::unique_ptr<Packet> NewPacket(FrameType type, size_t data_bytes);
  void Post(Peer& peer, std::unique_ptr<Packet> packet);
  void PostControl(Peer& peer, FrameType type, const Frame& fields, absl::Span<const std::byte> data = {});
  void Over(Packet& packet);
  static void OnSent(void* request, ucs_status_t status, void* user_data);
  static ucs_status_t OnFrame(void* arg, const void* header, size_t header_bytes, void* data, size_t bytes,
                              const ucp_am_recv_param_t* param);
  static void OnEndpointError(void* arg, ucp_ep_h endpoint, ucs_status_t status);
  void Handle(Peer& peer, const Frame& frame, absl::Span<const std::byte> data);

  // ucx_bodies.cc: messages, small and large.
  absl::Status Reach(int rank) const;
  void OnAnnouncement(Peer& peer, const Frame& frame, absl::Span<const std::byte> data);
  void OnAnswer(Peer& peer, const Frame& frame);
  void OnPiece(const Frame& frame, absl::Span<const std::byte> data);
  bool PushBodies();

  void WaitForEvent(int64_t nanos);

  // ucx_peers.cc: signs of life, and peers that are lost or leave.
  bool BuryPeers();
  void Gone(Peer& peer, bool left, std::string how);
  void EndEndpoint(Peer& peer);
  void FailRequests(const Peer& peer);
  // ucx_transport.cc
  void Connect(Peer& peer);
  void Greet(Peer& peer, int64_t now);
  void OnHello(Peer& peer, const Frame& frame);
  void SendPong(Peer& peer);
  void OnPong(Peer& peer, const Frame& frame, absl::Span<const std::byte> data);

  int rank_;
  const uint64_t incarnation_;
  const int64_t silence_;
  TransportEvents* const events_;
  std::unique_ptr<Worker> worker_;
  std::vector<std::unique_ptr<Peer>> peers_;   // by rank; null where not attached
  std::vector<std::unique_ptr<Peer>> former_;  // UCX may still speak of them
  std::list<std::unique_ptr<Packet>> in_flight_;
  std::vector<std::unique_ptr<Packet>> free_small_, free_large_;
  std::vector<void*> closing_;  // requests of endpoints that end

  std::unordered_map<uint32_t, SendRequest*> waiting_;  // announced or to be confirmed, by slot
  uint32_t next_slot_ = 1;
  std::list<Outbound> outbound_;
  std::unordered_map<uint64_t, Inbound> inbound_;  // by transfer
  uint64_t next_transfer_ = 1;
  Prefix arriving_;                                                // while its announcement is delivered
  std::unordered_map<uint64_t, std::vector<std::byte>> prefixes_;  // by rank << 32 | slot

  std::vector<BoardEntry> board_;
  std::optional<WaitingSign> sign_;
  int64_t last_look_ = 0;
  bool trouble_ = false;  // some peer is broken or has said that it leaves
  bool greeted_ = false;  // some peer may be connected to
  bool closed_ = false;   // nobody listens any more
  size_t bytes_in_ = 0;
};

}  // namespace cohort::comm::ucx
