// Peers of the same host: frames and small writes through rings in shared memory, writes into memory that the peer
// has offered, large bodies read by the target in one copy.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/transfer/link.h"
#include "comm/transfer/local_hub.h"
#include "comm/transfer/policy.h"
#include "comm/transfer/region_number.h"
#include "comm/transport/shm/process.h"

namespace cohort::comm::transfer {

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

  // A line of another type than kFrame, to fill and to commit; nullptr where there is no room now, which the peer is woken
  // to make.
  Line* Reserve(size_t bytes, std::byte** payload) {
    if (!broken_.empty()) return nullptr;
    Line* line = out_.Reserve(bytes, payload);
    if (line == nullptr) Knock();
    return line;
  }
  void Commit(Line* line) {
    out_.Commit(line);
    news_ = true;
  }
  // Wakes the peer if it sleeps and something was said since the last call.
  void Knock() {
    if (!news_) return;
    news_ = false;
    if (peer_hub_->sleepers.load(std::memory_order_seq_cst) != 0) WakePeer();
  }

  // What the peer has sent, a line at a time; nullptr where there is none. Valid until Release.
  const Line* Peek(const std::byte** payload) {
    return in_ring_ != nullptr && broken_.empty() ? in_.Peek(payload) : nullptr;
  }
  void Release() { in_.Release(); }
  // Also finds the ring that the peer writes to, and whether it has let go of one.
  bool HasNews();
  void CheckLife();

  // All writes below are complete at the peer, as it said outside of lines; and what this side says of the peer's.
  uint64_t SaidDoneBelow() const { return out_ring_->done_below.load(std::memory_order_acquire); }
  void SayDoneBelow(uint64_t op);

  // Writing into memory that the peer offers, if it does offer that region. Between Begin, which says where the region
  // lies here, and End, nothing but copies: the peer may be waiting for the end before it goes on.
  struct Mapping {
    uint64_t number = 0;
    std::byte* data = nullptr;  // nullptr: cannot be mapped
    uint64_t bytes = 0;
  };
  const Mapping* BeginWriting(uint64_t region) {
    const uint32_t slot = RegionSlot(region);
    if (slot >= policy::kTransferExports || !broken_.empty()) return nullptr;
    const Export& offered = peer_hub_->exports[slot];
    if (offered.number.load(std::memory_order_acquire) != region) return nullptr;
    if (slot >= mappings_.size() || mappings_[slot].number != region) Map(region);
    const Mapping& mapping = mappings_[slot];
    if (mapping.data == nullptr) return nullptr;
    // First say so, then look: the owner does it the other way round.
    out_ring_->writing.exchange(1, std::memory_order_seq_cst);
    if (out_ring_->revoked.load(std::memory_order_seq_cst) == 0 &&
        offered.number.load(std::memory_order_seq_cst) == region)
      return &mapping;
    EndWriting();
    return nullptr;
  }
  void EndWriting() { out_ring_->writing.store(0, std::memory_order_release); }
  // Unmaps what is no longer offered.
  void DropWithdrawn();
  // The peer writes into this engine's memory no more, also when this returns false: then it is in the middle of a
  // write and has not gone on for so long.
  bool Revoke(int64_t nanos);

  // The target's side of a pull.
  absl::Status Read(uint64_t address, void* to, size_t bytes) const {
    return process_.Read(address, static_cast<std::byte*>(to), bytes);
  }
  bool Claim(uint32_t slot, uint32_t generation);
  bool Confirm(uint32_t slot, uint32_t generation, bool taken);

 private:
  RingLink(LocalHub* own, shm::Process process, SharedMemory memory)
      : own_(own), process_(std::move(process)), memory_(std::move(memory)) {}
  void WakePeer();
  void Map(uint64_t region);

  LocalHub* own_;
  shm::Process process_;
  SharedMemory memory_;  // the peer's hub
  HubLayout* peer_hub_ = nullptr;
  int knock_fd_ = -1;
  uint64_t engine_ = 0;
  uint64_t peer_ = 0;
  int claim_ = -1;  // of a ring in the peer's hub
  bool readable_ = false;
  bool news_ = false;
  Ring* out_ring_ = nullptr;
  Ring* in_ring_ = nullptr;
  int in_claim_ = -1;
  RingProducer out_;
  RingConsumer in_;
  std::vector<Mapping> mappings_;  // by the region's slot
  std::string broken_;
};

}  // namespace cohort::comm::transfer
