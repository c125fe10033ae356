// Writes in: checked, copied into place, counted.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/doorbell.h"
#include "comm/policy.h"
#include "comm/transfer/engine.h"

namespace cohort::comm::transfer {

void Engine::OnFrame(const Frame& frame, absl::Span<const std::byte> payload) {
  if (frame.type == FrameType::kHello) {
    OnHello(frame);
    return;
  }
  const auto at = by_incarnation_.find(frame.to);
  if (at == by_incarnation_.end()) return;
  Peer& peer = *at->second;
  if (peer.lost || peer.their_incarnation != frame.from || frame.link >= peer.ways.size()) return;
  peer.ways[frame.link].silent = 0;
  Settle(peer, frame.settled);
  OnDoneBelow(peer, frame.done_below);
  switch (frame.type) {
    case FrameType::kHello:
      return;
    case FrameType::kData:
      OnData(peer, frame, payload);
      return;
    case FrameType::kPull:
      OnPull(peer, frame, payload);
      return;
    case FrameType::kDone:
      WriteOver(peer, frame.op, absl::OkStatus());
      return;
    case FrameType::kRefused:
      peer.owes_settled = true;
      WriteOver(peer, frame.op,
                absl::Status(static_cast<absl::StatusCode>(frame.code),
                             absl::StrCat(Name(peer), " refused a write: ",
                                          absl::string_view(reinterpret_cast<const char*>(payload.data()),
                                                            payload.size()))));
      return;
    case FrameType::kAbandon:
      if (!IsOver(peer, frame)) MarkOver(peer, frame.op);
      return;
    case FrameType::kPing: {
      Frame pong;
      pong.type = FrameType::kPong;
      SendControl(peer, frame.link, pong);
      return;
    }
    case FrameType::kPong:
      return;
    case FrameType::kBye:
      peer.bye = true;
      trouble_ = true;
      return;
  }
}

// All of this side's writes below are complete at the peer.
void Engine::OnDoneBelow(Peer& peer, uint64_t below) {
  below = std::max(below, peer.acked);
  while (!peer.outbound.empty() && peer.outbound.begin()->first < below)
    WriteOver(peer, peer.outbound.begin()->first, absl::OkStatus());
  while (!peer.small.empty() && peer.small.front().op < below)
    WriteOver(peer, peer.small.front().op, absl::OkStatus());
  peer.acked = peer.acked_done = below;
}

void Engine::Settle(Peer& peer, uint64_t settled) {
  if (settled <= peer.over_below) return;
  peer.over_below = settled;
  peer.over.erase(peer.over.begin(), peer.over.lower_bound(settled));
  peer.refused.erase(peer.refused.begin(), peer.refused.lower_bound(settled));
  if (!peer.inbound.empty())
    std::erase_if(peer.inbound, [&](const auto& one) { return one.first < settled; });
}

void Engine::MarkOver(Peer& peer, uint64_t op) {
  if (!peer.inbound.empty()) peer.inbound.erase(op);
  if (op != peer.over_below) {
    peer.over.insert(op);
    return;
  }
  ++peer.over_below;
  while (!peer.over.empty() && *peer.over.begin() == peer.over_below) {
    peer.over.erase(peer.over.begin());
    ++peer.over_below;
  }
}

// A refusal may travel on another rail than what says that later writes are done.
uint64_t Engine::DoneBelow(const Peer& peer) {
  return peer.refused.empty() ? peer.over_below : std::min(peer.over_below, peer.refused.begin()->first);
}

// Tells the peers which of their writes are over; with kUnanswered, those whose writes are answered at once are left to the
// answer.
void Engine::SayDone(Say which) {
  if (!done_unsaid_) return;
  done_unsaid_ = false;
  for (const auto& [id, peer] : peers_) {
    // Within a host a word says it.
    if (const uint64_t below = DoneBelow(*peer);
        peer->ring != nullptr && below > peer->told_below && !peer->lost) {
      peer->told_below = below;
      peer->ring->SayDoneBelow(below);
      peer->ring->Knock();
    }
    if (peer->unsaid.empty()) continue;
    if (which == Say::kUnanswered && peer->habit.expected()) {
      done_unsaid_ = true;
      continue;
    }
    Frame done;
    done.type = FrameType::kDone;
    bool alone = false;
    for (const uint64_t op : std::exchange(peer->unsaid, {})) {
      if (op < peer->told_below || peer->lost) continue;
      done.op = op < DoneBelow(*peer) ? 0 : op;
      SendControl(*peer, peer->ways.size(), done);
      alone = peer->ring == nullptr;
    }
    if (alone) peer->habit.SaidAlone(NowNanos());
  }
}

// Whether a write is over already; the source, which seems not to know, hears it again.
bool Engine::IsOver(Peer& peer, const Frame& frame) {
  if (frame.op >= peer.over_below && peer.over.count(frame.op) == 0) return false;
  if (frame.type == FrameType::kAbandon) return true;
  if (const auto at = peer.refused.find(frame.op); at != peer.refused.end()) {
    Refuse(peer, frame, absl::Status(at->second));
    return true;
  }
  Frame done;
  done.type = FrameType::kDone;
  done.op = frame.op;
  SendControl(peer, frame.link, done);
  return true;
}

absl::Status Engine::CheckRange(uint64_t region, uint64_t offset, uint64_t bytes, std::byte** at) {
  const Memory* found = FindRegion(region);
  if (found == nullptr) return absl::NotFoundError(absl::StrCat("region ", region, " is not registered"));
  const Memory& memory = *found;
  if (offset > memory.bytes || bytes > memory.bytes - offset) {
    return absl::OutOfRangeError(absl::StrCat("bytes ", offset, " to ", offset, "+", bytes,
                                              " are not within region ", region, ", which has ",
                                              memory.bytes));
  }
  *at = memory.data + offset;
  return absl::OkStatus();
}

void Engine::Refuse(Peer& peer, const Frame& frame, const absl::Status& why) {
  Frame refusal;
  refusal.type = FrameType::kRefused;
  refusal.code = static_cast<uint8_t>(why.code());
  refusal.op = frame.op;
  if (frame.op >= peer.over_below) {
    peer.refused[frame.op] = why;
    MarkOver(peer, frame.op);
  }
  SendControl(peer, frame.link, refusal, why.message());
}

void Engine::OnData(Peer& peer, const Frame& frame, absl::Span<const std::byte> payload) {
  if (IsOver(peer, frame)) return;
  const size_t table = size_t{frame.segments} * sizeof(Extent);
  if (table > payload.size()) return;
  const std::byte* data = payload.data() + table;
  size_t left = payload.size() - table;
  const size_t total = left;
  const auto extent = [&](uint32_t i) {
    Extent one;
    std::memcpy(&one, payload.data() + i * sizeof(Extent), sizeof(one));
    return one;
  };
  // All or nothing.
  std::byte* to = nullptr;
  if (frame.bytes > 0) {
    if (const absl::Status status = CheckRange(frame.region, 0, frame.reach, &to); !status.ok()) {
      Refuse(peer, frame, status);
      return;
    }
  }
  for (uint32_t i = 0; i < frame.segments; ++i) {
    const Extent one = extent(i);
    if (one.bytes > left) return;
    left -= one.bytes;
    if (const absl::Status status = CheckRange(frame.region, one.offset, one.bytes, &to); !status.ok()) {
      Refuse(peer, frame, status);
      return;
    }
  }
  if (total != frame.bytes && !peer.inbound[frame.op].places.insert(frame.place).second)
    return;  // has come before
  for (uint32_t i = 0; i < frame.segments; ++i) {
    const Extent one = extent(i);
    (void)CheckRange(frame.region, one.offset, one.bytes, &to);
    std::memcpy(to, data, one.bytes);
    data += one.bytes;
  }
  Arrived(peer, frame, total - left);
}

// So many bytes of a write are in place.
void Engine::Arrived(Peer& peer, const Frame& frame, uint64_t bytes) {
  if (bytes != frame.bytes) {
    Inbound& inbound = peer.inbound[frame.op];
    inbound.received += bytes;
    if (inbound.received < frame.bytes) return;
  }
  if (frame.type == FrameType::kPull &&
      !peer.ways[frame.link].ring->Confirm(frame.slot, frame.generation, true)) {
    MarkOver(peer, frame.op);  // the source has given it up: what was read may have been anything
    return;
  }
  MarkOver(peer, frame.op);
  // Said with the next frame to the peer, or at the next look: whoever waits for the immediate need not wait
  // for that.
  peer.unsaid.push_back(frame.op);
  done_unsaid_ = true;
  if ((frame.flags & kHasImmediate) != 0) CountImmediate(frame.immediate);
  if ((frame.flags & kIsBarrier) != 0) {
    ++peer.arrived[frame.immediate];
    ServeBarriers(peer, frame.immediate);
  }
}

void Engine::CountImmediate(uint32_t immediate) {
  if (void* fulfilled = counter_.Add(immediate); fulfilled != nullptr)
    Finish(*static_cast<Transfer*>(fulfilled), absl::OkStatus());
}

void Engine::ServeBarriers(Peer& peer, uint32_t tag) {
  const auto arrived = peer.arrived.find(tag);
  if (arrived == peer.arrived.end()) return;
  for (auto at = transfers_.begin(); at != transfers_.end() && arrived->second > 0;) {
    const std::shared_ptr<Transfer> transfer = *at++;
    if (!transfer->is_barrier || transfer->immediate != tag) continue;
    const auto awaited = std::find(transfer->awaited.begin(), transfer->awaited.end(), peer.id);
    if (awaited == transfer->awaited.end()) continue;
    transfer->awaited.erase(awaited);
    --arrived->second;
    OneOver(*transfer, absl::OkStatus());
  }
  if (arrived->second == 0) peer.arrived.erase(arrived);
}

void Engine::OnPull(Peer& peer, const Frame& frame, absl::Span<const std::byte> payload) {
  RingLink* ring = peer.ways[frame.link].ring;
  if (ring == nullptr || payload.size() != size_t{frame.segments} * sizeof(PullExtent)) return;
  if (IsOver(peer, frame)) return;
  std::byte* to = nullptr;
  if (const absl::Status status = CheckRange(frame.region, 0, frame.reach, &to); !status.ok()) {
    Refuse(peer, frame, status);
    return;
  }
  if (!ring->Claim(frame.slot, frame.generation)) return;  // given up by its source
  std::vector<PullExtent> extents(frame.segments);
  std::memcpy(extents.data(), payload.data(), payload.size());
  pulls_.push_back({peer.id, frame, std::move(extents)});
  size_t budget = policy::kInlineBytes;
  if (pulls_.size() == 1 && frame.bytes <= budget && Advance(pulls_.front(), &budget)) pulls_.pop_front();
}

bool Engine::AdvancePulls(size_t budget) {
  if (pulls_.empty()) return false;
  while (!pulls_.empty() && budget > 0) {
    if (Advance(pulls_.front(), &budget)) {
      pulls_.pop_front();
    } else {
      pulls_.splice(pulls_.end(), pulls_, pulls_.begin());
    }
  }
  return true;
}

// Reads some of it; whether it is over.
bool Engine::Advance(Pull& pull, size_t* budget) {
  Peer* peer = Find(pull.peer);
  if (peer == nullptr || peer->lost || peer->their_incarnation != pull.frame.from) return true;
  RingLink& ring = *peer->ways[pull.frame.link].ring;
  if (pull.frame.op < peer->over_below || peer->over.count(pull.frame.op) > 0) return true;
  uint64_t total = 0;
  size_t share = std::min(*budget, policy::kPullBytes);
  for (; pull.next < pull.extents.size(); pull.offset = 0, ++pull.next) {
    const PullExtent& extent = pull.extents[pull.next];
    std::byte* to = nullptr;
    absl::Status status = CheckRange(pull.frame.region, extent.offset, extent.bytes, &to);
    const uint64_t bytes = std::min<uint64_t>(extent.bytes - pull.offset, share);
    if (status.ok() && bytes > 0) status = ring.Read(extent.address + pull.offset, to + pull.offset, bytes);
    if (!status.ok()) {
      (void)ring.Confirm(pull.frame.slot, pull.frame.generation, false);
      Refuse(*peer, pull.frame, status);
      return true;
    }
    share -= bytes;
    *budget -= bytes;
    pull.offset += bytes;
    if (pull.offset < extent.bytes) return false;
  }
  for (const PullExtent& extent : pull.extents) total += extent.bytes;
  Arrived(*peer, pull.frame, total);
  return true;
}

}  // namespace cohort::comm::transfer
