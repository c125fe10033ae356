// Frames out and in.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/transport/ucx/ucx_transport.h"

namespace cohort::comm::ucx {

std::unique_ptr<UcxTransport::Packet> UcxTransport::NewPacket(FrameType type, size_t data_bytes) {
  std::unique_ptr<Packet> packet = ports_[0]->NewPacket(data_bytes);
  packet->frame.type = type;
  return packet;
}

void UcxTransport::Post(Peer& peer, std::unique_ptr<Packet> packet) {
  if (peer.gone) return;
  if (!peer.heard) {
    peer.held.push_back(std::move(packet));
    return;
  }
  ++peer.frames_out;
  if (packet->frame.type == FrameType::kLeave) packet->frame.offset = peer.frames_out - 1;
  if (packet->frame.type == FrameType::kPiece) ++peer.pieces_in_flight;
  const size_t rail = ChooseRail(peer);
  if (peer.rails.size() > 1) {
    packet->frame.sequence = peer.next_sequence++;
    peer.unconfirmed[packet->frame.sequence] = {nullptr, rail, packet->bytes,
                                                packet->frame.type == FrameType::kPiece};
    peer.rails[rail].unconfirmed += packet->bytes;
  }
  PostOn(peer, rail, std::move(packet));
}

void UcxTransport::PostControl(Peer& peer, FrameType type, const Frame& fields,
                               absl::Span<const std::byte> data) {
  std::unique_ptr<Packet> packet = NewPacket(type, data.size());
  packet->frame = fields;
  packet->frame.type = type;
  if (!data.empty()) std::memcpy(packet->data.get(), data.data(), data.size());
  Post(peer, std::move(packet));
}

void UcxTransport::OnBroken(Port<Frame>::Endpoint&) { trouble_ = true; }

void UcxTransport::OnArrival(const Frame& frame, absl::Span<const std::byte> data) {
  if (frame.from < 0 || frame.from >= static_cast<int>(peers_.size())) return;
  Peer* peer = peers_[frame.from].get();
  if (peer == nullptr || peer->gone || peer->incarnation != frame.incarnation ||
      frame.rail >= peer->rails.size())
    return;
  Rail& rail = peer->rails[frame.rail];
  rail.heard = true;
  rail.unheard = 0;
  if (frame.unheard < kUnheardMost) rail.silent = std::min(rail.silent, frame.unheard * kUnheardNanos);
  if (!std::exchange(peer->heard, true)) {
    for (auto& packet : std::exchange(peer->held, {})) Post(*peer, std::move(packet));
  }
  if (peer->rails.size() == 1) {
    Take(*peer, frame, data);
    return;
  }
  Confirm(*peer, frame.below);
  if (frame.sequence != 0) {
    TakeInOrder(*peer, frame, data);
  } else if (!closed_) {
    Handle(*peer, frame, data);
  }
}

// A frame whose turn it is.
void UcxTransport::Take(Peer& peer, const Frame& frame, absl::Span<const std::byte> data) {
  if (frame.type != FrameType::kHello) ++peer.frames_in;
  if (frame.type == FrameType::kBye || frame.type == FrameType::kLeave) peer.said_bye = true;
  if (!closed_) Handle(peer, frame, data);
}

void UcxTransport::Handle(Peer& peer, const Frame& frame, absl::Span<const std::byte> data) {
  switch (frame.type) {
    case FrameType::kHello:
      if (frame.slot == 0) SayHello(peer, frame.rail, /*asks=*/false);
      return;
    case FrameType::kHave:
      return;
    case FrameType::kMessage:
      if (data.size() == frame.bytes) {
        events_->OnMessage(*this, peer.rank, {frame.key, frame.signature, frame.bytes, frame.slot, 0, 0},
                           data.data());
      }
      return;
    case FrameType::kAnnouncement:
      OnAnnouncement(peer, frame, data);
      return;
    case FrameType::kClear:
    case FrameType::kTaken:
    case FrameType::kRefused:
      OnAnswer(peer, frame);
      return;
    case FrameType::kPiece:
      OnPiece(peer, frame, data);
      return;
    case FrameType::kAbort:
      events_->OnAbort(
          peer.rank, frame.key,
          absl::Status(static_cast<absl::StatusCode>(frame.code),
                       absl::string_view(reinterpret_cast<const char*>(data.data()), data.size())));
      return;
    case FrameType::kPing:
      SendPong(peer, frame.rail);
      return;
    case FrameType::kPong:
      OnPong(peer, frame, data);
      return;
    case FrameType::kLeave:
      peer.leaving = true;
      peer.last_frame = frame.offset;
      trouble_ = true;
      PostControl(peer, FrameType::kBye, {});
      return;
    case FrameType::kBye:
      return;
  }
}

}  // namespace cohort::comm::ucx
