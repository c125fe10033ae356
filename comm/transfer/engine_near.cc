// Small writes within a host. A write into memory that the peer has allocated is done when its bytes are stored there;
// its immediate travels in a line of the ring. Any other travels in a line whole, or beside it, and the target checks
// and copies it as it does frames. Whatever does not fit here takes the way of frames.
#include <algorithm>
#include <cstring>
#include <utility>

#include "comm/policy.h"
#include "comm/transfer/engine.h"
#include "comm/transfer/policy.h"

namespace cohort::comm::transfer {
namespace {

// A call of memcpy takes longer than these two moves.
void CopyNear(std::byte* to, const std::byte* from, size_t bytes) {
  if (bytes < sizeof(uint64_t) || bytes > 2 * sizeof(uint64_t)) {
    std::memcpy(to, from, bytes);
    return;
  }
  uint64_t first = 0, last = 0;
  const size_t rest = bytes - sizeof(last);
  std::memcpy(&first, from, sizeof(first));
  std::memcpy(&last, from + rest, sizeof(last));
  std::memcpy(to, &first, sizeof(first));
  std::memcpy(to + rest, &last, sizeof(last));
}

}  // namespace

bool Engine::WriteNear(const WriteRequest& request, Work* work) {
  if (request.bytes > policy::kTransferMappedBytes) return false;
  const std::lock_guard lock(mutex_);
  ProgressSometimes();
  Peer* peer = Find(request.peer);
  if (closed_ || peer == nullptr || peer->ring == nullptr || peer->lost) return false;
  const std::byte* from = nullptr;
  if (request.bytes > 0) {
    const Memory* memory = FindRegion(request.from.number);
    if (memory == nullptr || request.from_offset > memory->bytes ||
        request.bytes > memory->bytes - request.from_offset)
      return false;
    from = memory->data + request.from_offset;
  }
  // What fits into the line that its immediate needs is best there: it costs the peer one cache line in all.
  if (request.bytes > kInlineBytes || (request.bytes > 0 && !request.immediate.has_value())) {
    const Segment segment = {from, request.to_offset, request.bytes, 0};
    if (WriteMapped(*peer, {&segment, 1}, request.to.number, request.immediate)) return true;
  }
  Way& way = peer->ways[0];
  if (request.bytes > policy::kTransferPullBytes || peer->owes_settled || !way.Live() ||
      !way.control.empty() || !way.parts.empty())
    return false;
  std::byte* to = nullptr;
  Line* line = peer->ring->Reserve(request.bytes, &to);
  if (line == nullptr) return false;
  if (request.bytes > 0) CopyNear(to, from, request.bytes);
  line->flags = request.immediate.has_value() ? kHasImmediate : 0;
  line->immediate = request.immediate.value_or(0);
  line->region = request.to.number;
  line->offset = request.to_offset;
  const uint64_t op = peer->next_op++;
  line->op = static_cast<uint32_t>(op);
  SendLine(*peer, line, LineType::kWrite);
  // The target may have it by now; what follows is for this side.
  std::shared_ptr<Transfer> transfer = NewTransfer(request.deadline);
  transfer->remaining = 1;
  transfer->writes.emplace_back(peer->id, op);
  peer->small.push_back({op, transfer});
  if (long_sleep_) WakeSleeper();  // it has a deadline now
  *work = Work(std::move(transfer));
  return true;
}

void Engine::SendLine(Peer& peer, Line* line, LineType type) {
  line->type = type;
  line->from = static_cast<uint32_t>(peer.incarnation);
  line->to = static_cast<uint32_t>(peer.their_incarnation);
  const uint64_t told_before = std::exchange(peer.told_below, DoneBelow(peer));
  line->done_below = static_cast<uint32_t>(peer.told_below);
  peer.ring->Commit(line);
  // That bytes are in place is news to nobody who sleeps: who waits for them waits for an immediate, or looks at them. That
  // the peer's own writes are done is.
  const bool only_bytes = type == LineType::kCount && (line->flags & kHasImmediate) == 0;
  if (!only_bytes || peer.told_below != told_before) peer.ring->Knock();
}

// Stores a write into the peer's memory, where it is mapped. All or nothing: a range that is not within the region is
// left to the target to refuse.
bool Engine::WriteMapped(Peer& peer, absl::Span<const Segment> segments, uint64_t to_region,
                         std::optional<uint32_t> immediate) {
  if (peer.ring == nullptr || !peer.ways[0].Live()) return false;
  std::byte* none = nullptr;
  Line* line = nullptr;
  if (immediate.has_value()) {
    if (!peer.ways[0].control.empty() || !peer.ways[0].parts.empty()) return false;
    line = peer.ring->Reserve(0, &none);
    if (line == nullptr) return false;
  }
  const RingLink::Mapping* mapping = peer.ring->BeginWriting(to_region);
  if (mapping == nullptr) return false;
  const bool fits = std::all_of(segments.begin(), segments.end(), [&](const Segment& segment) {
    return segment.to <= mapping->bytes && segment.bytes <= mapping->bytes - segment.to;
  });
  if (fits) {
    for (const Segment& segment : segments) CopyNear(mapping->data + segment.to, segment.from, segment.bytes);
  }
  peer.ring->EndWriting();
  if (!fits) return false;
  if (line != nullptr) {
    line->flags = kHasImmediate;
    line->immediate = *immediate;
    SendLine(peer, line, LineType::kCount);
  }
  return true;
}

bool Engine::AdvanceCopies(size_t budget) {
  bool moved = false;
  for (auto at = copies_.begin(); at != copies_.end() && budget > 0;) {
    const size_t before = budget;
    at = Advance(*at, &budget) ? copies_.erase(at) : std::next(at);
    moved |= budget != before;
  }
  if (!copies_.empty()) copies_.splice(copies_.end(), copies_, copies_.begin());  // they take turns
  return moved;
}

// Stores some of it; whether it is over, or left to frames.
bool Engine::Advance(Copy& copy, size_t* budget) {
  Peer* peer = Find(copy.peer);
  if (peer == nullptr || peer->lost) return true;
  const auto at = peer->outbound.find(copy.op);
  if (at == peer->outbound.end()) return true;
  Outbound& write = at->second;
  if (copy.place < write.bytes) {
    // Before both sides have met, the peer's memory is not for this one yet, and frames wait as well.
    const RingLink::Mapping* mapping =
        peer->ways[0].Live() ? peer->ring->BeginWriting(write.to_region) : nullptr;
    const bool fits = mapping != nullptr && write.reach <= mapping->bytes;
    while (*budget > 0 && fits && copy.place < write.bytes) {
      auto segment = std::upper_bound(write.segments.begin(), write.segments.end(), copy.place,
                                      [](uint64_t wanted, const Segment& one) { return wanted < one.place; });
      --segment;
      const uint64_t skip = copy.place - segment->place;
      const uint64_t bytes = std::min<uint64_t>(segment->bytes - skip, *budget);
      std::memcpy(mapping->data + segment->to + skip, segment->from + skip, bytes);
      copy.place += bytes;
      *budget -= bytes;
    }
    if (mapping != nullptr) peer->ring->EndWriting();
    if (!fits) {
      Assign(*peer, copy.op, write);
      Pump(*peer);
      return true;
    }
    if (copy.place < write.bytes) return false;
  }
  std::byte* none = nullptr;
  Line* line = peer->ring->Reserve(0, &none);
  backlog_ |= line == nullptr;
  if (line == nullptr) return false;
  line->flags = kHasOp | write.flags;
  line->op = static_cast<uint32_t>(copy.op);
  line->immediate = write.immediate;
  SendLine(*peer, line, LineType::kCount);
  WriteOver(*peer, copy.op, absl::OkStatus());
  return true;
}

// Takes what the peer has put in its ring.
bool Engine::TakeLines(Peer& peer) {
  size_t moved = 0;
  while (moved < policy::kProgressBytes) {
    const std::byte* payload = nullptr;
    const Line* line = peer.ring->Peek(&payload);
    if (line == nullptr) break;
    const size_t bytes = line->bytes;
    moved += sizeof(Line) + bytes;
    if (line->type != LineType::kFrame) {
      OnLine(peer, *line, payload);
    } else if (bytes >= sizeof(Frame) && bytes <= policy::kTransferRingBytes) {
      Frame frame;
      std::memcpy(&frame, payload, sizeof(frame));
      OnFrame(frame, {payload + sizeof(frame), bytes - sizeof(frame)});
    }
    peer.ring->Release();
  }
  return moved > 0;
}

void Engine::OnLine(Peer& peer, const Line& line, const std::byte* data) {
  if (peer.lost || line.to != static_cast<uint32_t>(peer.incarnation) ||
      line.from != static_cast<uint32_t>(peer.their_incarnation))
    return;
  if (line.type == LineType::kCount) {
    if (const uint64_t op = Whole(line.op, peer.over_below);
        (line.flags & kHasOp) != 0 && op >= peer.over_below && peer.over.count(op) == 0)
      MarkOver(peer, op);
    if ((line.flags & kHasImmediate) != 0) CountImmediate(line.immediate);
  } else {
    OnSmall(peer, line, data);
  }
  // Whoever waits for the write goes first; that this side's are done is dealt with when it looks again.
  peer.acked = std::max(peer.acked, Whole(line.done_below, peer.next_op));
}

void Engine::OnSmall(Peer& peer, const Line& line, const std::byte* data) {
  const uint64_t op = Whole(line.op, peer.over_below);
  if (op < peer.over_below || peer.over.count(op) > 0) return;  // given up by its source
  const uint32_t bytes = line.bytes;
  if (bytes > 0) {
    std::byte* to = nullptr;
    if (bytes > policy::kTransferPullBytes) return;
    if (const absl::Status status = CheckRange(line.region, line.offset, bytes, &to); !status.ok()) {
      Frame frame;
      frame.op = op;
      Refuse(peer, frame, status);
      return;
    }
    CopyNear(to, data, bytes);
  }
  MarkOver(peer, op);
  if (op >= DoneBelow(peer)) peer.unsaid.push_back(op);  // one before it is not over, or was refused
  done_unsaid_ = true;
  if ((line.flags & kHasImmediate) != 0) CountImmediate(line.immediate);
}

}  // namespace cohort::comm::transfer
