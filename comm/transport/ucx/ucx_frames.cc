// Frames out and in.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/transport/ucx/ucx_transport.h"

namespace cohort::comm::ucx {
namespace {

// Buffers up to this size are kept apart from those of pieces, and so many of each.
constexpr size_t kSmallPacketBytes = 4 << 10;
constexpr size_t kPacketsKept = 16;

}  // namespace

std::unique_ptr<UcxTransport::Packet> UcxTransport::NewPacket(FrameType type, size_t data_bytes) {
  auto& kept = data_bytes <= kSmallPacketBytes ? free_small_ : free_large_;
  std::unique_ptr<Packet> packet;
  if (!kept.empty()) {
    packet = std::move(kept.back());
    kept.pop_back();
  } else {
    packet = std::make_unique<Packet>();
    packet->capacity = data_bytes <= kSmallPacketBytes ? kSmallPacketBytes : policy::kUcxPieceBytes;
    packet->data = std::make_unique_for_overwrite<std::byte[]>(packet->capacity);
    packet->owner = this;
  }
  packet->frame = {};
  packet->frame.type = type;
  packet->bytes = data_bytes;
  return packet;
}

void UcxTransport::Over(Packet& packet) {
  if (packet.frame.type == FrameType::kPiece) --packet.peer->pieces_in_flight;
  if (packet.frame.type == FrameType::kPing) packet.peer->ping_in_flight = false;
  std::unique_ptr<Packet> done = std::move(*packet.place);
  in_flight_.erase(packet.place);
  auto& kept = done->capacity == kSmallPacketBytes ? free_small_ : free_large_;
  if (kept.size() < kPacketsKept) kept.push_back(std::move(done));
}

void UcxTransport::OnSent(void* request, ucs_status_t, void* user_data) {
  // A failure is the endpoint's, which has been told.
  Packet& packet = *static_cast<Packet*>(user_data);
  packet.owner->Over(packet);
  ucp_request_free(request);
}

void UcxTransport::Post(Peer& peer, std::unique_ptr<Packet> owned) {
  if (peer.gone || !peer.broken.empty()) return;
  if (peer.endpoint == nullptr || (!peer.heard && owned->frame.type != FrameType::kHello)) {
    peer.held.push_back(std::move(owned));
    return;
  }
  Packet& packet = *owned;
  packet.peer = &peer;
  packet.frame.from = rank_;
  packet.frame.incarnation = incarnation_;
  packet.frame.unheard_ms = static_cast<uint16_t>(std::min<int64_t>(peer.unheard / 1'000'000, UINT16_MAX));
  packet.place = in_flight_.insert(in_flight_.end(), std::move(owned));
  if (packet.frame.type == FrameType::kPiece) ++peer.pieces_in_flight;
  if (packet.frame.type == FrameType::kPing) peer.ping_in_flight = true;
  if (packet.frame.type == FrameType::kLeave) packet.frame.offset = peer.frames_out;
  if (packet.frame.type != FrameType::kHello) ++peer.frames_out;

  ucp_request_param_t param = {};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_AM_SEND_FLAG_EAGER;
  param.cb.send = OnSent;
  param.user_data = &packet;
  const ucs_status_ptr_t sent = ucp_am_send_nbx(peer.endpoint, kActiveMessage, &packet.frame, sizeof(Frame),
                                                packet.data.get(), packet.bytes, &param);
  if (UCS_PTR_IS_PTR(sent)) return;
  if (UCS_PTR_IS_ERR(sent)) OnEndpointError(&peer, peer.endpoint, UCS_PTR_STATUS(sent));
  Over(packet);
}

void UcxTransport::PostControl(Peer& peer, FrameType type, const Frame& fields,
                               absl::Span<const std::byte> data) {
  std::unique_ptr<Packet> packet = NewPacket(type, data.size());
  packet->frame = fields;
  packet->frame.type = type;
  if (!data.empty()) std::memcpy(packet->data.get(), data.data(), data.size());
  Post(peer, std::move(packet));
}

void UcxTransport::OnEndpointError(void* arg, ucp_ep_h, ucs_status_t status) {
  Peer& peer = *static_cast<Peer*>(arg);
  if (peer.broken.empty()) peer.broken = ucs_status_string(status);
  peer.owner->trouble_ = true;
}

ucs_status_t UcxTransport::OnFrame(void* arg, const void* header, size_t header_bytes, void* data,
                                   size_t bytes, const ucp_am_recv_param_t* param) {
  auto& self = *static_cast<UcxTransport*>(arg);
  Frame frame;
  if (header_bytes != sizeof(frame) || (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0) return UCS_OK;
  std::memcpy(&frame, header, sizeof(frame));
  if (frame.from < 0 || frame.from >= static_cast<int>(self.peers_.size())) return UCS_OK;
  Peer* peer = self.peers_[frame.from].get();
  if (peer == nullptr || peer->gone || peer->incarnation != frame.incarnation) return UCS_OK;
  peer->unheard = 0;
  peer->silent = std::min(peer->silent, frame.unheard_ms * int64_t{1'000'000});
  if (frame.type != FrameType::kHello) ++peer->frames_in;
  self.bytes_in_ += bytes;
  if (frame.type == FrameType::kBye || frame.type == FrameType::kLeave) peer->said_bye = true;
  if (!self.closed_) {
    self.OnHello(*peer, frame);
    self.Handle(*peer, frame, {static_cast<const std::byte*>(data), bytes});
  }
  return UCS_OK;
}

void UcxTransport::Handle(Peer& peer, const Frame& frame, absl::Span<const std::byte> data) {
  switch (frame.type) {
    case FrameType::kHello:
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
      OnPiece(frame, data);
      return;
    case FrameType::kAbort:
      events_->OnAbort(
          peer.rank, frame.key,
          absl::Status(static_cast<absl::StatusCode>(frame.code),
                       absl::string_view(reinterpret_cast<const char*>(data.data()), data.size())));
      return;
    case FrameType::kPing:
      SendPong(peer);
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
