// Writes out: cut, sent as there is room, and confirmed.
#include <algorithm>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "comm/doorbell.h"
#include "comm/policy.h"
#include "comm/transfer/engine.h"
#include "comm/transfer/policy.h"

namespace cohort::comm::transfer {

absl::Status Engine::Append(const Region& from, uint64_t from_offset, uint64_t to_offset, uint64_t bytes,
                            Segments& to) {
  if (bytes == 0) return absl::OkStatus();
  const std::lock_guard lock(mutex_);
  const Memory* found = FindRegion(from.number);
  if (found == nullptr)
    return absl::NotFoundError(absl::StrCat("source region ", from.number, " is not registered here"));
  const Memory& memory = *found;
  if (from_offset > memory.bytes || bytes > memory.bytes - from_offset) {
    return absl::InvalidArgumentError(absl::StrCat("source bytes ", from_offset, " to ", from_offset, "+",
                                                   bytes, " are not within region ", from.number,
                                                   ", which has ", memory.bytes));
  }
  const std::byte* data = memory.data + from_offset;
  const uint64_t place = to.empty() ? 0 : to.back().place + to.back().bytes;
  // Neighbours become one.
  if (!to.empty() && to.back().from + to.back().bytes == data &&
      to.back().to + to.back().bytes == to_offset) {
    to.back().bytes += bytes;
  } else {
    to.push_back({data, to_offset, bytes, place});
  }
  return absl::OkStatus();
}

Work Engine::Submit(std::vector<Call> calls, std::optional<absl::Time> deadline) {
  const std::lock_guard lock(mutex_);
  if (closed_) return Work(absl::CancelledError("the transfer engine has ended"));
  ProgressSometimes();
  for (const Call& call : calls) {
    Peer* peer = nullptr;
    if (const absl::Status status = Reach(call.peer, &peer); !status.ok()) return Work(status);
    // Since Append, others may have unregistered it.
    if (!call.segments.empty() && FindRegion(call.from_region) == nullptr) {
      return Work(
          absl::NotFoundError(absl::StrCat("source region ", call.from_region, " is not registered here")));
    }
  }
  std::erase_if(calls, [&](const Call& call) {
    const uint64_t bytes =
        call.segments.empty() ? 0 : call.segments.back().place + call.segments.back().bytes;
    return bytes > 0 && bytes <= policy::kTransferMappedBytes &&
           WriteMapped(*Find(call.peer), call.segments, call.to_region, call.immediate);
  });
  if (calls.empty()) return Work();
  std::shared_ptr<Transfer> transfer = NewTransfer(deadline);
  transfer->remaining = calls.size();
  transfer->writes.reserve(calls.size());
  for (Call& call : calls) {
    Outbound write;
    write.flags = call.immediate.has_value() ? kHasImmediate : 0;
    write.immediate = call.immediate.value_or(0);
    write.from_region = call.from_region;
    write.to_region = call.to_region;
    if (!call.segments.empty()) write.bytes = call.segments.back().place + call.segments.back().bytes;
    for (const Segment& segment : call.segments) {
      const uint64_t most = UINT64_MAX - segment.bytes;
      write.reach = std::max(write.reach, std::min(segment.to, most) + segment.bytes);
    }
    write.segments = std::move(call.segments);
    Start(*Find(call.peer), transfer, std::move(write));
  }
  if (long_sleep_ || backlog_ || !copies_.empty()) WakeSleeper();
  return Work(transfer);
}

void Engine::Start(Peer& peer, const std::shared_ptr<Transfer>& transfer, Outbound write) {
  if (peer.habit.listens()) peer.habit.Answered(NowNanos());
  const uint64_t op = peer.next_op++;
  write.transfer = transfer;
  transfer->writes.emplace_back(peer.id, op);
  if (write.from_region != 0 && write.bytes > 0) ++FindRegion(write.from_region)->users;
  Outbound& placed = peer.outbound.emplace_hint(peer.outbound.end(), op, std::move(write))->second;
  if (peer.ring != nullptr && placed.bytes > policy::kTransferMappedBytes) {
    copies_.push_back({peer.id, op});
    AdvanceCopies(policy::kProgressBytes);
    return;
  }
  Assign(peer, op, placed);
  Pump(peer);
}

// Gives the parts of a write that have none a way to travel, as far as there are any.
void Engine::Assign(Peer& peer, uint64_t op, Outbound& write) {
  absl::InlinedVector<int, 4> live;
  for (size_t i = 0; i < peer.ways.size(); ++i) {
    if (peer.ways[i].Live()) live.push_back(static_cast<int>(i));
  }
  if (live.empty()) return;
  if (write.parts.empty()) {
    if (live.size() == 1) {
      write.parts.push_back({{live[0], 0, write.bytes}, 0});
    } else {
      for (const Shard& shard :
           Stripe(write.bytes, {live.begin(), live.end()}, options_.min_shard_bytes, turn_++)) {
        write.parts.push_back({shard, shard.begin});
      }
    }
    for (size_t i = 0; i < write.parts.size(); ++i)
      peer.ways[write.parts[i].shard.rail].parts.push_back({op, i});
    return;
  }
  for (size_t i = 0; i < write.parts.size(); ++i) {
    Part& part = write.parts[i];
    if (part.shard.rail >= 0) continue;
    part.shard.rail = live[turn_++ % live.size()];
    part.next = part.shard.begin;  // the same frames again: the target knows which it has
    peer.ways[part.shard.rail].parts.push_back({op, i});
  }
}

bool Engine::Pump(Peer& peer) {
  bool moved = false;
  for (size_t number = 0; number < peer.ways.size(); ++number) {
    Way& way = peer.ways[number];
    if (way.buried) continue;
    while (!way.control.empty()) {
      const Control& control = way.control.front();
      const Piece payload = {control.payload.data(), control.payload.size()};
      if (!way.link->TrySend(control.frame, {&payload, 1})) break;
      way.control.pop_front();
      moved = true;
    }
    while (way.control.empty() && !way.parts.empty() && way.heard) {
      const auto [op, index] = way.parts.front();
      const auto at = peer.outbound.find(op);
      if (at == peer.outbound.end() || at->second.parts[index].shard.rail != static_cast<int>(number)) {
        way.parts.pop_front();  // over, given up, or on another way
        continue;
      }
      Part& part = at->second.parts[index];
      if (!SendNext(peer, number, op, at->second, part)) break;
      moved = true;
      way.parts.pop_front();
      if (part.next < part.shard.end) way.parts.push_back({op, index});
    }
    if (!way.control.empty() || !way.parts.empty()) backlog_ |= way.ring != nullptr;
    if (way.ring != nullptr) way.ring->Knock();
  }
  return moved;
}

Frame Engine::WriteFrame(const Peer& peer, uint64_t op, const Outbound& write, const Part& part) const {
  Frame frame;
  frame.type = FrameType::kData;
  frame.flags = write.flags;
  frame.immediate = write.immediate;
  frame.link = static_cast<uint8_t>(part.shard.rail);
  frame.from = peer.incarnation;
  frame.to = peer.their_incarnation;
  frame.op = op;
  frame.settled = Settled(peer);
  frame.done_below = DoneBelow(peer);
  frame.bytes = write.bytes;
  frame.place = part.next;
  frame.region = write.to_region;
  frame.reach = write.reach;
  return frame;
}

bool Engine::SendNext(Peer& peer, size_t way, uint64_t op, Outbound& write, Part& part) {
  const bool pulled = write.bytes > policy::kTransferPullBytes && peer.ways[way].link->pulls();
  return pulled ? SendPull(peer, way, op, write, part) : SendData(peer, way, op, write, part);
}

bool Engine::SendData(Peer& peer, size_t way, uint64_t op, Outbound& write, Part& part) {
  Link& link = *peer.ways[way].link;
  absl::InlinedVector<Extent, 8> extents;
  absl::InlinedVector<Piece, 9> pieces(1);
  size_t room = link.MaxPayload();
  uint64_t place = part.next;
  auto segment = std::upper_bound(write.segments.begin(), write.segments.end(), place,
                                  [](uint64_t wanted, const Segment& one) { return wanted < one.place; });
  if (segment != write.segments.begin()) --segment;
  while (place < part.shard.end && room > sizeof(Extent)) {
    const uint64_t skip = place - segment->place;
    const uint64_t bytes =
        std::min({segment->bytes - skip, part.shard.end - place, uint64_t{room - sizeof(Extent)}});
    extents.push_back({segment->to + skip, bytes});
    pieces.push_back({segment->from + skip, static_cast<size_t>(bytes)});
    room -= sizeof(Extent) + bytes;
    place += bytes;
    ++segment;
  }
  pieces[0] = {extents.data(), extents.size() * sizeof(Extent)};
  Frame frame = WriteFrame(peer, op, write, part);
  frame.segments = static_cast<uint32_t>(extents.size());
  if (!link.TrySend(frame, pieces)) return false;
  peer.owes_settled = false;
  peer.told_below = frame.done_below;
  part.next = place;
  return true;
}

bool Engine::SendPull(Peer& peer, size_t way, uint64_t op, Outbound& write, Part& part) {
  if (write.slot == 0) {
    write.slot = hub_->TakeSlot();
    if (write.slot == 0) return false;
    write.generation = hub_->Post(write.slot);
  }
  absl::InlinedVector<PullExtent, 8> extents;
  uint64_t place = part.next;
  auto segment = std::upper_bound(write.segments.begin(), write.segments.end(), place,
                                  [](uint64_t wanted, const Segment& one) { return wanted < one.place; });
  --segment;
  for (; place < part.shard.end && extents.size() < policy::kTransferPullExtents; ++segment) {
    const uint64_t skip = place - segment->place;
    const uint64_t bytes = std::min(segment->bytes - skip, part.shard.end - place);
    extents.push_back({reinterpret_cast<uintptr_t>(segment->from + skip), segment->to + skip, bytes});
    place += bytes;
  }
  Frame frame = WriteFrame(peer, op, write, part);
  frame.type = FrameType::kPull;
  frame.segments = static_cast<uint32_t>(extents.size());
  frame.slot = write.slot;
  frame.generation = write.generation;
  const Piece table = {extents.data(), extents.size() * sizeof(PullExtent)};
  if (!peer.ways[way].link->TrySend(frame, {&table, 1})) return false;
  peer.owes_settled = false;
  peer.told_below = frame.done_below;
  part.next = place;
  return true;
}

// On that way, or on another where it does not work.
void Engine::SendControl(Peer& peer, size_t number, Frame frame, absl::string_view payload) {
  if (number >= peer.ways.size() || peer.ways[number].buried) {
    const auto live =
        std::find_if(peer.ways.begin(), peer.ways.end(), [](const Way& way) { return way.Live(); });
    if (live == peer.ways.end()) return;
    number = static_cast<size_t>(live - peer.ways.begin());
  }
  Way& way = peer.ways[number];
  frame.link = static_cast<uint8_t>(number);
  frame.from = peer.incarnation;
  frame.to = peer.their_incarnation;
  frame.settled = Settled(peer);
  frame.done_below = peer.told_below = DoneBelow(peer);
  const Piece piece = {payload.data(), payload.size()};
  if (way.control.empty() && way.link->TrySend(frame, {&piece, 1})) {
    if (way.ring != nullptr) way.ring->Knock();
    return;
  }
  way.control.push_back({frame, std::string(payload)});
  backlog_ |= way.ring != nullptr;
}

// Whether a write is on its way.
bool Engine::Pending(Peer& peer, uint64_t op) {
  return peer.outbound.count(op) > 0 || FindSmall(peer, op) != nullptr;
}

Engine::Small* Engine::FindSmall(Peer& peer, uint64_t op) {
  const auto at = std::lower_bound(peer.small.begin(), peer.small.end(), op,
                                   [](const Small& small, uint64_t wanted) { return small.op < wanted; });
  return at != peer.small.end() && at->op == op && at->transfer != nullptr ? &*at : nullptr;
}

// All writes below are over.
uint64_t Engine::Settled(const Peer& peer) {
  const uint64_t first = peer.outbound.empty() ? peer.next_op : peer.outbound.begin()->first;
  return peer.small.empty() ? first : std::min(first, peer.small.front().op);
}

void Engine::WriteOver(Peer& peer, uint64_t op, const absl::Status& status) {
  if (Small* small = FindSmall(peer, op); small != nullptr) {
    const std::shared_ptr<Transfer> transfer = std::move(small->transfer);
    while (!peer.small.empty() && peer.small.front().transfer == nullptr) peer.small.pop_front();
    OneOver(*transfer, status);
    return;
  }
  const auto at = peer.outbound.find(op);
  if (at == peer.outbound.end()) return;
  Outbound& write = at->second;
  const std::shared_ptr<Transfer> transfer = std::move(write.transfer);
  if (write.slot != 0) {
    if (!status.ok()) (void)hub_->TakeBack(write.slot, write.generation);
    hub_->FreeSlot(write.slot);
  }
  if (write.from_region != 0 && write.bytes > 0) {
    if (Memory* memory = FindRegion(write.from_region); memory != nullptr) --memory->users;
  }
  peer.outbound.erase(at);
  OneOver(*transfer, status);
}

}  // namespace cohort::comm::transfer
