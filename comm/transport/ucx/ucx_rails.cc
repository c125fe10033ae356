// Frames over several rails. They are numbered, go to the rail that has the least to do, and are taken in the order of
// their numbers, each once. The sender keeps them until the receiver has confirmed them: what a rail had that failed is
// sent again over the others. Over a single rail nothing of this is needed, nor done: UCX keeps the order.
#include <algorithm>
#include <cstring>
#include <utility>

#include "comm/transport/ucx/policy.h"
#include "comm/transport/ucx/ucx_transport.h"

namespace cohort::comm::ucx {

void UcxTransport::PostOn(Peer& peer, size_t rail, std::unique_ptr<Packet> packet) {
  Frame& frame = packet->frame;
  frame.rail = static_cast<uint8_t>(rail);
  frame.from = rank_;
  frame.incarnation = incarnation_;
  frame.below = peer.said_below = peer.taken_below;
  frame.unheard =
      static_cast<uint8_t>(std::min<int64_t>(peer.rails[rail].unheard / kUnheardNanos, kUnheardMost));
  Port<Frame>::Endpoint& endpoint = *peer.rails[rail].endpoint;
  endpoint.port->Post(endpoint, std::move(packet));
}

// What belongs to a rail rather than to the messages that take any. Hellos may be dropped, so nobody counts them.
void UcxTransport::PostProbe(Peer& peer, size_t rail, FrameType type, const Frame& fields,
                             absl::Span<const std::byte> data) {
  if (peer.gone || peer.rails[rail].buried) return;
  if (type == FrameType::kPing) peer.rails[rail].ping_in_flight = true;
  if (peer.rails.size() == 1 && type != FrameType::kHello) {
    PostControl(peer, type, fields, data);
    return;
  }
  std::unique_ptr<Packet> packet = NewPacket(type, data.size());
  packet->frame = fields;
  packet->frame.type = type;
  if (!data.empty()) std::memcpy(packet->data.get(), data.data(), data.size());
  PostOn(peer, rail, std::move(packet));
}

// The least loaded of those that were heard of; where there are none yet, the first that has not failed.
size_t UcxTransport::ChooseRail(const Peer& peer) {
  size_t best = peer.rails.size();
  for (size_t i = 0; i < peer.rails.size(); ++i) {
    const Rail& rail = peer.rails[i];
    if (rail.buried || (!rail.heard && best < peer.rails.size())) continue;
    if (best == peer.rails.size() || (rail.heard && !peer.rails[best].heard) ||
        rail.unconfirmed < peer.rails[best].unconfirmed)
      best = i;
  }
  return best == peer.rails.size() ? 0 : best;
}

void UcxTransport::OnOver(std::unique_ptr<Packet> packet) {
  Peer& peer = *static_cast<Peer*>(packet->endpoint->owner);
  const Frame& frame = packet->frame;
  if (frame.type == FrameType::kPing) peer.rails[frame.rail].ping_in_flight = false;
  if (frame.sequence == 0) {
    if (frame.type == FrameType::kPiece) --peer.pieces_in_flight;
  } else if (const auto at = peer.unconfirmed.find(frame.sequence);
             at != peer.unconfirmed.end() && !peer.gone) {
    if (at->second.rail == frame.rail) {
      at->second.packet = std::move(packet);
    } else {
      PostOn(peer, at->second.rail, std::move(packet));  // its rail has failed in the meantime
    }
    return;
  }
  Recycle(std::move(packet));
}

// The peer has all below.
void UcxTransport::Confirm(Peer& peer, uint64_t below) {
  while (!peer.unconfirmed.empty() && peer.unconfirmed.begin()->first < below) {
    Sent& sent = peer.unconfirmed.begin()->second;
    peer.rails[sent.rail].unconfirmed -= sent.bytes;
    if (sent.piece) --peer.pieces_in_flight;
    if (sent.packet != nullptr) ports_[0]->Keep(std::move(sent.packet));
    peer.unconfirmed.erase(peer.unconfirmed.begin());
  }
}

void UcxTransport::TakeInOrder(Peer& peer, const Frame& frame, absl::Span<const std::byte> data) {
  if (frame.sequence > peer.taken_below) {
    Early& early = peer.early[frame.sequence];
    early.frame = frame;
    early.data.assign(data.begin(), data.end());
    return;
  }
  if (frame.sequence == peer.taken_below) {
    ++peer.taken_below;
    Take(peer, frame, data);
    while (!peer.early.empty() && peer.early.begin()->first <= peer.taken_below) {
      const auto next = peer.early.extract(peer.early.begin());
      if (next.key() != peer.taken_below) continue;
      ++peer.taken_below;
      Take(peer, next.mapped().frame, next.mapped().data);
    }
  }
  // Also for one that came twice: the peer seems not to know.
  if (peer.taken_below - peer.said_below < policy::kUcxFramesUnsaid && frame.sequence >= peer.said_below)
    return;
  PostOn(peer, frame.rail, NewPacket(FrameType::kHave, 0));
}

// What a rail had goes to the others.
void UcxTransport::SendAgain(Peer& peer, size_t failed) {
  for (auto& [sequence, sent] : peer.unconfirmed) {
    if (sent.rail != failed) continue;
    peer.rails[failed].unconfirmed -= sent.bytes;
    sent.rail = ChooseRail(peer);
    peer.rails[sent.rail].unconfirmed += sent.bytes;
    if (sent.packet != nullptr) PostOn(peer, sent.rail, std::move(sent.packet));
  }
}

// Not inside of UCX's callbacks. Whether any rail is left; if not, how the last one failed.
bool UcxTransport::BuryRails(Peer& peer, std::string* how) {
  for (size_t i = 0; i < peer.rails.size(); ++i) {
    Rail& rail = peer.rails[i];
    if (rail.buried || rail.endpoint->broken.empty()) continue;
    *how = rail.endpoint->broken;
    rail.buried = true;
    if (std::all_of(peer.rails.begin(), peer.rails.end(), [](const Rail& one) { return one.buried; }))
      return false;
    rail.endpoint->port->End(*rail.endpoint, *how);
    SendAgain(peer, i);
  }
  return true;
}

}  // namespace cohort::comm::ucx
