// What is behind TransferEngine: peers, writes out and in, and who makes progress. One lock for all of it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "comm/policy.h"
#include "comm/transfer/answer_habit.h"
#include "comm/transfer/card.h"
#include "comm/transfer/imm_counter.h"
#include "comm/transfer/lock.h"
#include "comm/transfer/rail.h"
#include "comm/transfer/region_number.h"
#include "comm/transfer/ring_link.h"
#include "comm/transfer/stripe.h"
#include "comm/transfer/transfer_engine.h"
#include "comm/transport/ucx/interfaces.h"

namespace cohort::comm::transfer {

class Engine;

// What a Work stands for: writes, a barrier or an expectation.
struct Transfer : public WorkState {
  bool Done() override;
  absl::Status Wait(absl::Time deadline) override;
  // Of one that is over and that nobody else knows: as new.
  void Renew();

  std::shared_ptr<Engine> engine;
  std::atomic<bool> done{false};
  absl::Status status;  // written before `done`
  // Under the engine's lock:
  absl::Status first_error;
  size_t remaining = 0;  // writes, and peers of a barrier
  int64_t deadline = 0;  // 0: the engine's own time after `begun`, not asked for yet
  int64_t begun = 0;     // in ticks
  std::list<std::shared_ptr<Transfer>>::iterator place;
  absl::InlinedVector<std::pair<PeerId, uint64_t>, 1> writes;
  std::vector<PeerId> awaited;  // by a barrier; or those whose loss fails an expectation
  bool is_barrier = false;
  bool is_expectation = false;
  uint32_t immediate = 0;  // or the barrier's tag
  uint64_t count = 0;      // expected
};

class Engine : public LinkEvents, public std::enable_shared_from_this<Engine> {
 public:
  static absl::StatusOr<std::shared_ptr<Engine>> Create(Options options);
  ~Engine() override;
  void Close();

  std::string CardText() const { return card_.ToText(); }
  absl::StatusOr<PeerId> AddPeer(const std::string& text,
                                 std::function<void(PeerId, const absl::Status&)> on_lost);
  absl::Status RemovePeer(PeerId id);
  absl::StatusOr<int> LiveRails(PeerId id) const;

  absl::StatusOr<Region> Register(void* data, uint64_t bytes);
  absl::StatusOr<Allocation> Allocate(uint64_t bytes);
  absl::Status Unregister(Region region);

  // A range of a write: from this process's memory to an offset of the target's region.
  struct Segment {
    const std::byte* from = nullptr;
    uint64_t to = 0;
    uint64_t bytes = 0;
    uint64_t place = 0;  // bytes of the segments before it
  };
  using Segments = std::vector<Segment>;
  struct Call {  // one write to one peer
    PeerId peer{};
    uint64_t from_region = 0;
    uint64_t to_region = 0;
    Segments segments;
    std::optional<uint32_t> immediate;
  };
  // Adds a segment, or says why it is not within the local region.
  absl::Status Append(const Region& from, uint64_t from_offset, uint64_t to_offset, uint64_t bytes,
                      Segments& to);
  // The shortest way of one range to a peer of this host, into *work where it is not over at once; false where it has to
  // take the way of all others.
  bool WriteNear(const WriteRequest& request, Work* work);
  Work Submit(std::vector<Call> calls, std::optional<absl::Time> deadline);
  Work Barrier(const std::vector<PeerId>& peers, uint32_t tag, std::optional<absl::Time> deadline);
  Work Expect(const ExpectRequest& request);
  uint64_t Count(uint32_t immediate) const;

  bool Poll(Transfer& transfer);
  absl::Status Wait(Transfer& transfer, absl::Time deadline);

  void OnFrame(const Frame& frame, absl::Span<const std::byte> payload) override;

 private:
  struct Memory {
    uint64_t number = 0;  // 0: the slot is free
    uint64_t last_number = 0;
    std::byte* data = nullptr;
    uint64_t bytes = 0;
    int users = 0;                       // writes in flight from it
    std::optional<SharedMemory> shared;  // allocated by the engine: peers of this host may map it
  };
  struct Part {  // a shard on its way; rail: which of the peer's ways, -1 none yet
    Shard shard;
    uint64_t next = 0;
  };
  struct Outbound {
    std::shared_ptr<Transfer> transfer;
    uint8_t flags = 0;
    uint32_t immediate = 0;
    uint64_t from_region = 0;
    uint64_t to_region = 0;
    uint64_t bytes = 0;
    uint64_t reach = 0;
    Segments segments;
    std::vector<Part> parts;
    uint32_t slot = 0;
    uint32_t generation = 0;
  };
  // A small write in a line of a ring: its source's memory was copied.
  struct Small {
    uint64_t op = 0;
    std::shared_ptr<Transfer> transfer;  // null: over
  };
  struct Inbound {
    uint64_t received = 0;
    std::set<uint64_t> places;
  };
  struct Control {
    Frame frame;
    std::string payload;
  };
  // A link to a peer and what waits for room in it.
  struct Way {
    std::unique_ptr<Link> link;
    RingLink* ring = nullptr;
    bool heard = false;
    bool buried = false;
    int64_t silent = 0;
    int64_t last_ping = 0;
    std::deque<Control> control;
    std::deque<std::pair<uint64_t, size_t>> parts;  // of writes: they take turns, a frame each
    bool Live() const { return heard && !buried; }
  };
  struct Peer {
    PeerId id{};
    std::string name;
    uint64_t engine = 0;
    uint64_t incarnation = 0;
    uint64_t their_incarnation = 0;
    bool lost = false;
    bool bye = false;
    bool confirmed = false;  // it has answered this incarnation
    absl::Status why;
    std::function<void(PeerId, const absl::Status&)> on_lost;
    std::vector<Way> ways;
    RingLink* ring = nullptr;  // of the only way to a peer of this host
    // Out. Writes by number.
    uint64_t next_op = 1;
    std::map<uint64_t, Outbound> outbound;
    std::deque<Small> small;
    bool owes_settled =
        false;  // the peer remembers a refusal: a frame, which a line is not, is to say that it is known
    uint64_t acked = 0;  // the peer has said that all below are complete; dealt with up to `acked_done`
    uint64_t acked_done = 0;
    // In. All writes below are over, and those of the set.
    uint64_t over_below = 1;
    std::set<uint64_t> over;
    std::map<uint64_t, absl::Status> refused;
    std::unordered_map<uint64_t, Inbound> inbound;
    std::vector<uint64_t> unsaid;          // over, but the source has not been told
    uint64_t told_below = 1;               // it has been told of these
    AnswerHabit habit;                     // of this side, where the peer is on another host
    std::map<uint32_t, uint64_t> arrived;  // at barriers, by tag
  };
  struct Copy {  // a large write into memory that its peer has allocated
    PeerId peer;
    uint64_t op = 0;
    uint64_t place = 0;  // bytes before it are there
  };
  struct Pull {  // part of a write that is read from a process of this host
    PeerId peer;
    Frame frame;
    std::vector<PullExtent> extents;
    size_t next = 0;
    uint64_t offset = 0;  // in that extent
  };

  explicit Engine(Options options);

  Memory* NewRegion();
  void Release(Memory& memory);

  // engine_progress.cc
  void TakeOver();
  void LeaveToWaiters(uint64_t* waits_seen, bool has_remote_peers);
  void Loop();
  bool Progress();
  // Nobody need wait for writes that are over when they return, so it is in these calls that news are noticed.
  void ProgressSometimes() {
    if (!near_.empty() && !closed_ && ++calls_made_ % policy::kPollsPerClock == 0) Progress();
  }
  bool Look();
  bool LookAtRings();
  bool Turn(const Transfer& transfer, bool everything);
  bool Sleep(std::unique_lock<CourteousMutex>& lock, int64_t nanos);
  bool Arm();
  static bool HasAcks(const Peer& peer) {
    return (!peer.small.empty() || !peer.outbound.empty()) &&
           std::max(peer.acked, peer.ring->SaidDoneBelow()) > peer.acked_done;
  }
  void WakeSleeper();
  void Check(int64_t now);
  int64_t SleepLimit() const;

  // engine_peers.cc
  absl::Status Reach(PeerId id, Peer** peer);
  absl::StatusOr<std::vector<std::pair<int, int>>> PairRails(const Card& card) const;
  Peer* Find(PeerId id) const {
    return static_cast<uint64_t>(id) < peer_at_.size() ? peer_at_[static_cast<uint64_t>(id)] : nullptr;
  }
  Memory* FindRegion(uint64_t number) {
    const uint32_t slot = RegionSlot(number);
    return slot < regions_.size() && number != 0 && regions_[slot].number == number ? &regions_[slot]
                                                                                    : nullptr;
  }
  void CheckPeer(Peer& peer, int64_t now, int64_t look);
  void BuryWay(Peer& peer, size_t number);
  void Lose(Peer& peer, absl::Status why);
  void OnHello(const Frame& frame);
  void SendHello(Peer& peer, size_t way, bool answer);
  std::string Name(const Peer& peer) const;
  std::string NameOf(PeerId id);

  // engine_out.cc
  static uint64_t Settled(const Peer& peer);
  static bool Pending(Peer& peer, uint64_t op);
  static Small* FindSmall(Peer& peer, uint64_t op);
  void Start(Peer& peer, const std::shared_ptr<Transfer>& transfer, Outbound write);
  void Assign(Peer& peer, uint64_t op, Outbound& write);
  bool Pump(Peer& peer);
  bool SendNext(Peer& peer, size_t way, uint64_t op, Outbound& write, Part& part);
  bool SendPull(Peer& peer, size_t way, uint64_t op, Outbound& write, Part& part);
  bool SendData(Peer& peer, size_t way, uint64_t op, Outbound& write, Part& part);
  Frame WriteFrame(const Peer& peer, uint64_t op, const Outbound& write, const Part& part) const;
  void SendControl(Peer& peer, size_t way, Frame frame, absl::string_view payload = {});
  void WriteOver(Peer& peer, uint64_t op, const absl::Status& status);

  // engine_transfers.cc
  std::shared_ptr<Transfer> NewTransfer(std::optional<absl::Time> deadline);
  int64_t DeadlineOf(Transfer& transfer) const;
  void OneOver(Transfer& transfer, const absl::Status& status);
  void Finish(Transfer& transfer, const absl::Status& status);
  void GiveUp(Transfer& transfer, const absl::Status& status);
  absl::Status Late(Transfer& transfer);

  // engine_near.cc
  bool WriteMapped(Peer& peer, absl::Span<const Segment> segments, uint64_t to_region,
                   std::optional<uint32_t> immediate);
  bool AdvanceCopies(size_t budget);
  bool Advance(Copy& copy, size_t* budget);
  void SendLine(Peer& peer, Line* line, LineType type);
  bool TakeLines(Peer& peer);
  void OnLine(Peer& peer, const Line& line, const std::byte* data);
  void OnSmall(Peer& peer, const Line& line, const std::byte* data);

  // engine_in.cc
  bool IsOver(Peer& peer, const Frame& frame);
  void Settle(Peer& peer, uint64_t settled);
  void OnDoneBelow(Peer& peer, uint64_t below);
  void OnData(Peer& peer, const Frame& frame, absl::Span<const std::byte> payload);
  void OnPull(Peer& peer, const Frame& frame, absl::Span<const std::byte> payload);
  bool AdvancePulls(size_t budget);
  bool Advance(Pull& pull, size_t* budget);
  absl::Status CheckRange(uint64_t region, uint64_t offset, uint64_t bytes, std::byte** at);
  void Arrived(Peer& peer, const Frame& frame, uint64_t bytes);
  void Refuse(Peer& peer, const Frame& frame, const absl::Status& why);
  void MarkOver(Peer& peer, uint64_t op);
  static uint64_t DoneBelow(const Peer& peer);
  enum class Say { kAll, kUnanswered };
  void SayDone(Say which);
  void CountImmediate(uint32_t immediate);
  void ServeBarriers(Peer& peer, uint32_t tag);

  const Options options_;
  const int64_t silence_;
  int spin_polls_ = 0;
  Card card_;
  mutable CourteousMutex mutex_;
  std::vector<ucx::Interface> interfaces_;  // one for each rail
  std::vector<std::unique_ptr<Rail>> rails_;
  std::unique_ptr<LocalHub> hub_;
  std::unordered_map<uint64_t, std::unique_ptr<Peer>> peers_;     // by id
  std::vector<Peer*> peer_at_{nullptr};                           // the same; null where it was removed
  std::vector<Peer*> near_;                                       // those of this host
  std::unordered_map<uint64_t, Peer*> by_incarnation_;            // by this side's incarnation
  std::list<std::pair<int64_t, std::unique_ptr<Link>>> leaving_;  // until when
  uint64_t next_incarnation_ = RandomNumber() >> 2;               // later ones are larger
  std::vector<Memory> regions_{1};                                // by slot; none has number 0
  std::vector<uint32_t> free_regions_;
  std::list<std::shared_ptr<Transfer>> transfers_;
  std::list<std::shared_ptr<Transfer>> spare_;  // places for more: empty, or with one that is over
  ImmCounter counter_;
  uint64_t turn_ = 0;
  std::list<Pull> pulls_;
  std::list<Copy> copies_;
  std::deque<std::function<void()>> calls_;  // of on_lost callbacks, for the engine's thread
  int remote_peers_ = 0;
  unsigned polls_ = 0;
  unsigned calls_made_ = 0;
  std::atomic<bool> done_unsaid_{false};  // written under the lock
  bool trouble_ = false;
  bool backlog_ = false;  // something waits for room in a ring, which rings no bell
  int64_t last_check_ = 0;

  // Who makes progress: threads that wait, or else the engine's own, which sleeps on the event fds.
  std::atomic<int> waiters_{0};
  std::atomic<int> slept_waiters_{0};
  std::atomic<uint64_t> waits_{0};  // that are over
  bool sleeping_ = false;           // one thread sleeps on the event fds, others on changed_
  bool long_sleep_ = false;
  int sleepers_ = 0;
  bool closed_ = false;
  bool stop_ = false;
  std::condition_variable_any changed_;
  std::mutex takeover_mutex_;  // after mutex_, or alone
  std::condition_variable takeover_;
  bool takeover_now_ = false;
  int wake_fd_ = -1;
  std::thread thread_;
};

}  // namespace cohort::comm::transfer
