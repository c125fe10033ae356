// The shared-memory transport: ranks of one host.
#pragma once

#include <sys/uio.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/transport/shm/page_pipe.h"
#include "comm/transport/shm/process.h"
#include "comm/transport/shm/ring.h"
#include "comm/transport/shm/segment.h"
#include "comm/transport/transport.h"

namespace cohort::comm::shm {

// Small messages are copied through a ring. Of large ones the ring carries the address: the receiver copies them from the
// sender's memory, once, straight into place or into the reduction, and says so in the sender's slot. It takes what the
// sender has lent of them (`page_pipe.h`), and reads the rest. What goes which way is measured (`body_way.h`). Where the
// system forbids reading, the receiver asks, and the sender copies fragments through the ring.
class ShmTransport : public Transport {
 public:
  // What a peer must know to attach, as text.
  static absl::StatusOr<std::unique_ptr<ShmTransport>> Create(int rank, int size, TransportEvents* events);
  // This rank's number, where it was not known at first (-1): before the first Attach.
  void SetRank(int rank) { rank_ = rank; }
  // Whether the process of that address still lives.
  static bool Lives(const std::string& address);
  ~ShmTransport() override;
  std::string Address() const;
  // Attaches to a peer by its Address(). Where that fails, the pair must use another transport.
  absl::Status Attach(int peer, const std::string& address);
  // Forgets a peer, which sees it if it lives. Nothing may be in flight to or from it.
  void Detach(int peer);
  // Bytes that this rank has taken from pages lent to it.
  uint64_t borrowed_bytes() const { return borrowed_bytes_; }
  // Where this rank's threads sleep: peers ring it.
  Doorbell* doorbell() { return &(*own_)->doorbell; }

  absl::string_view name() const override { return "shm"; }
  BodyPath PathOf(int peer, size_t bytes) const override;
  void Send(SendRequest& send) override;
  void CancelSend(SendRequest& send) override;
  void Deliver(RecvRequest& recv, const MessageHeader& header, const std::byte* body) override;
  void Accept(RecvRequest& recv, const MessageHeader& header) override;
  void CancelRecv(RecvRequest& recv) override;
  void Reply(int peer, const MessageHeader& header, Answer answer) override;
  void SendAbort(int peer, const MessageKey& key, const absl::Status& why) override;
  bool Progress(size_t budget) override;
  void CheckPeers() override;
  int64_t MaxSleepNanos() const override;
  void PublishBegun(uint32_t context, uint32_t sequence) override;
  std::optional<uint32_t> Begun(int peer, uint32_t context) const override;
  void PublishWaiting(int64_t now, absl::Span<const int> awaited) override;
  std::optional<WaitingSign> LastWaiting(int peer) const override;
  void Close() override;

 private:
  // What waits for room in a ring: a send, or a line of control with its text.
  struct Outgoing {
    SendRequest* send = nullptr;
    EntryType type = EntryType::kAbort;
    MessageHeader header;
    uint8_t code = 0;
    std::string text;
  };
  struct Pull {
    RecvRequest* recv;
    MessageHeader header;
    size_t offset;
    int64_t ticks = 0;                     // that it has taken
    size_t borrowed = 0;                   // bytes of it
    std::optional<RunCursor> remote = {};  // where it does not lie together there
    std::optional<RunCursor> local = {};   // where it is read into place, which does not lie together
  };
  struct Peer {
    Peer(int rank, Process process, std::unique_ptr<Segment> segment);
    ~Peer();
    int rank;
    Process process;
    std::unique_ptr<Segment> segment;
    Ring* out_ring = nullptr;  // in its segment
    Ring* in_ring = nullptr;   // in this rank's
    RingProducer out;
    RingConsumer in;
    PageLender lender;
    PageBorrower borrower;
    BodyWay way;       // of what this rank sends
    TakenNotes taken;  // what it took this rank to take what came
    std::deque<Outgoing> backlog;
    std::deque<Pull> pulls;  // bodies under way from there, in the order in which they were announced
    bool readable = false;
    bool lends = true;    // pages, to it
    bool asks = false;    // it cannot read here: it has asked for a body
    bool spoke = false;   // since the last look who is stopped
    int64_t stopped = 0;  // nanoseconds that its process was seen stopped
    bool gone = false;
    bool left = false;
    std::string how;  // it is gone
  };

  ShmTransport(int rank, int size, TransportEvents* events, std::unique_ptr<Segment> own);

  Peer& At(int peer) { return *peers_[peer]; }
  // Whether it went into the ring.
  bool TrySend(Peer& peer, SendRequest& send);
  // Notes in it whether the ring carries the address only, and whether pages are lent.
  void ChooseWay(Peer& peer, SendRequest& send) const;
  // Whether that is a choice.
  static bool HasWay(const SendRequest& send);
  static void CopyIn(Peer& peer, const SendRequest& send, std::byte* payload);
  // Whether pages can be lent to a peer, as far as is known.
  bool CanLend(const Peer& peer) const;
  // Lends the first pages of a message that is announced; how many.
  uint32_t Lend(Peer& peer, const SendRequest& send);
  // Notes what was lent of one.
  void NoteLent(Peer& peer, const Entry& entry, MessageHeader* header);
  bool TryControl(Peer& peer, const Outgoing& control);
  void Control(Peer& peer, Outgoing control);
  bool Flush(Peer& peer);
  // Handles some of what came; whether there was any.
  bool Drain(Peer& peer, size_t* budget);
  void Handle(Peer& peer, const Entry& entry, const std::byte* payload);
  void OnPushAsked(const Entry& entry);
  void OnFragment(const Entry& entry, const std::byte* payload);

  bool LookAtSlots();
  SlotState StateOf(const SendRequest& send) const;
  // Of the announced send at that place among those that are answered later.
  void EndAnswered(size_t place, const absl::Status& status);
  uint32_t TakeSlot();
  void FreeSlot(uint32_t slot);
  bool PushSome(SendRequest& send, size_t* budget);

  // Reads the next bytes of a pull, at most so many, to where they lie together or into place; *got = how many: so many
  // where both sides lie together.
  absl::Status ReadSome(Pull& pull, size_t most, std::byte* dense, size_t* got);
  // It has pulls: it takes its turns from now on.
  void StartPulling(Peer& peer);
  // The part of it that was lent and is still to be had, from where the pull is on: how many bytes came.
  size_t Borrow(Peer& peer, Pull& pull, size_t most, std::byte* to);
  // What was lent of a message that will not be taken from there, and of those before, is out of the way of the next: but
  // for pulls that are under way.
  static void PassOver(Peer& peer, const MessageHeader& header);
  // Moves up to `budget` bytes of a pull; whether it is over.
  bool Advance(Pull& pull, size_t* budget);
  void FinishPull(const Pull& pull, const absl::Status& status);
  absl::Status GoneStatus(const Peer& peer) const;
  void LookWhoIsStopped();

  int rank_;
  const int64_t silence_;
  TransportEvents* events_;
  std::unique_ptr<Segment> own_;
  bool may_read_ = true;
  std::vector<std::unique_ptr<Peer>> peers_;  // by rank; null where not reached
  std::vector<Peer*> live_;
  std::vector<uint32_t> free_slots_;
  std::vector<uint32_t> generations_;
  std::vector<SendRequest*> answered_later_;  // hold a slot
  std::vector<SendRequest*> pushing_;
  std::deque<Peer*> pulling_;                             // have pulls, and take turns
  std::unordered_map<uint64_t, RecvRequest*> transfers_;  // bodies that peers push here
  uint64_t next_transfer_ = 1;
  uint64_t borrowed_bytes_ = 0;
  size_t backlog_ = 0;
  int64_t last_look_ = 0;                // who is stopped
  const std::byte* arriving_ = nullptr;  // the payload of the message that is just being handled
  std::vector<std::byte> staging_;
  std::vector<iovec> from_, to_;
};

}  // namespace cohort::comm::shm
