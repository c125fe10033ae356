// Peers of the same host: frames through rings in shared memory, large bodies read by the target in one copy.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/transfer/link.h"
#include "comm/transport/shm/process.h"
#include "comm/transport/shm/ring.h"
#include "comm/transport/shm/segment.h"

namespace cohort::comm::transfer {

// This engine's memory that peers of its host write to: one ring for each of them, which the peer claims with
// the number of its engine by a compare-and-swap in the segment's board; and slots, in which its own large
// writes are answered.
class LocalHub {
 public:
  static absl::StatusOr<std::unique_ptr<LocalHub>> Create();
  ~LocalHub();

  // What peers need, as text without spaces.
  std::string Card() const;
  // Who may be asked to look when something was put in a ring.
  int wake_fd() const { return pipe_[0]; }
  // Peers write to the pipe only between the two. BeginSleep before a last look at the rings.
  void BeginSleep() { (*segment_)->doorbell.sleepers.fetch_add(1, std::memory_order_seq_cst); }
  void EndSleep();
  // The number of the ring that a peer's engine has claimed, or -1 yet; and its memory.
  int Claimed(uint64_t engine) const;
  shm::Ring* StartReading(int ring);
  bool StillClaimed(int ring, uint64_t engine) const;
  // `orphaned`: nobody will let go of it, as its writer has died.
  void StopReading(int ring, shm::Ring* memory, bool orphaned);
  // Frees the rings that their writers have let go of and nobody reads.
  void Sweep();

  // Slots of writes that targets read from this process.
  uint32_t TakeSlot();  // 0: none free
  void FreeSlot(uint32_t slot);
  uint32_t Post(uint32_t slot);  // a new generation
  // Takes a write back; false where the target has it all.
  bool Withdraw(uint32_t slot, uint32_t generation);

 private:
  explicit LocalHub(std::unique_ptr<shm::Segment> segment) : segment_(std::move(segment)) {}

  std::unique_ptr<shm::Segment> segment_;
  int pipe_[2] = {-1, -1};
  std::vector<bool> reading_;
  std::vector<uint32_t> free_slots_;
  std::vector<uint32_t> generations_;
};

class RingLink final : public Link {
 public:
  // Attaches to the hub of a peer on this host. `engine`: this side's number; `peer`: the other's.
  static absl::StatusOr<std::unique_ptr<RingLink>> Attach(LocalHub* own, const std::string& card,
                                                          uint64_t engine, uint64_t peer);
  ~RingLink() override;

  bool TrySend(const Frame& frame, absl::Span<const Piece> payload) override;
  const std::string& broken() const override { return broken_; }
  void End(std::string why) override;
  size_t MaxPayload() const override { return policy::kTransferRingFrameBytes; }
  bool pulls() const override { return readable_; }

  // Delivers what the peer has sent. Whether something moved.
  bool Drain(LinkEvents* events, size_t budget);
  bool HasNews();
  // Wakes the peer if it sleeps and something was sent since the last call.
  void Knock();
  void CheckLife();

  // The target's side of a pull.
  absl::Status Read(uint64_t address, void* to, size_t bytes) const;
  bool Claim(uint32_t slot, uint32_t generation);
  bool Confirm(uint32_t slot, uint32_t generation, bool taken);

 private:
  RingLink(LocalHub* own, shm::Process process, std::unique_ptr<shm::Segment> segment)
      : own_(own), process_(std::move(process)), segment_(std::move(segment)) {}

  LocalHub* own_;
  shm::Process process_;
  std::unique_ptr<shm::Segment> segment_;
  int knock_fd_ = -1;
  uint64_t engine_ = 0;
  uint64_t peer_ = 0;
  int claim_ = -1;  // of a ring in the peer's hub
  bool readable_ = false;
  bool news_ = false;
  shm::Ring* out_ring_ = nullptr;
  shm::Ring* in_ring_ = nullptr;
  int in_claim_ = -1;
  shm::RingProducer out_;
  shm::RingConsumer in_;
  std::string broken_;
};

}  // namespace cohort::comm::transfer
