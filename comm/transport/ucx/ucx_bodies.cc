// Messages, small and large.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "comm/transport/ucx/policy.h"
#include "comm/transport/ucx/ucx_transport.h"

namespace cohort::comm::ucx {
namespace {

uint64_t InboundKey(int peer, uint32_t slot) { return static_cast<uint64_t>(peer) << 32 | slot; }

}  // namespace

absl::Status UcxTransport::Reach(int rank) const {
  const Peer* peer = peers_[rank].get();
  if (peer == nullptr) return absl::UnavailableError(absl::StrFormat("rank %d is not attached", rank));
  return peer->gone ? absl::UnavailableError(peer->how) : absl::OkStatus();
}

void UcxTransport::Send(SendRequest& send) {
  if (const absl::Status reach = Reach(send.peer); !reach.ok()) {
    send.owner->OnRequestDone(send.token, reach);
    return;
  }
  const bool whole = send.bytes <= policy::kUcxPieceBytes;
  const size_t now = std::min(send.bytes, policy::kUcxPieceBytes);
  std::unique_ptr<Packet> packet = NewPacket(whole ? FrameType::kMessage : FrameType::kAnnouncement, now);
  packet->frame.key = send.key;
  packet->frame.signature = send.signature;
  packet->frame.bytes = send.bytes;
  send.Fetch(0, now, packet->data.get());
  Peer& peer = *peers_[send.peer];
  const bool waits = !whole || send.confirmed;
  if (waits) {
    while (next_slot_ == 0 || waiting_.count(next_slot_) > 0) ++next_slot_;
    send.slot = next_slot_++;
    packet->frame.slot = send.slot;
    waiting_[send.slot] = &send;
  }
  Post(peer, std::move(packet));
  if (!waits) send.owner->OnRequestDone(send.token, absl::OkStatus());
  if (whole) return;
  peer.outbound.push_back({&send, now, /*cleared=*/false});
  sending_.insert(peer.rank);
  PushBodies();
}

void UcxTransport::CancelSend(SendRequest& send) {
  const auto at = waiting_.find(send.slot);
  if (at == waiting_.end() || at->second != &send) return;
  waiting_.erase(at);
  if (peers_[send.peer] == nullptr) return;
  Peer& peer = *peers_[send.peer];
  peer.outbound.remove_if([&](const Outbound& body) { return body.send == &send; });
  if (peer.outbound.empty()) sending_.erase(peer.rank);
}

void UcxTransport::OnAnnouncement(Peer& peer, const Frame& frame, absl::Span<const std::byte> data) {
  if (data.size() >= frame.bytes) return;
  arriving_ = {peer.rank, frame.slot, data};
  // Where this does not wait for its receive, Accept or Reply is called inside and takes what has come.
  events_->OnAnnouncement(*this, peer.rank, {frame.key, frame.signature, frame.bytes, frame.slot, 0, 0});
  if (arriving_.peer >= 0) {
    Inbound& body = inbound_[InboundKey(peer.rank, frame.slot)];
    body.bytes = frame.bytes;
    body.kept.assign(data.begin(), data.end());
  }
  arriving_ = {};
}

void UcxTransport::Accept(RecvRequest& recv, const MessageHeader& header) {
  const uint64_t key = InboundKey(recv.peer, header.slot);
  if (const absl::Status reach = Reach(recv.peer); reach.ok()) {
    Frame clear;
    clear.slot = header.slot;
    PostControl(*peers_[recv.peer], FrameType::kClear, clear);
  } else if (const auto at = inbound_.find(key); at == inbound_.end() || !at->second.complete()) {
    recv.owner->OnRequestDone(recv.token, reach);
    return;
  }
  Inbound& body = inbound_[key];
  const std::vector<std::byte> kept = std::move(body.kept);
  absl::Span<const std::byte> here = kept;
  if (arriving_.peer == recv.peer && arriving_.slot == header.slot) {
    here = std::exchange(arriving_, {}).data;
  }
  recv.Deliver(here.data(), 0, here.size());
  if (here.size() == recv.bytes) {
    inbound_.erase(key);
    recv.owner->OnRequestDone(recv.token, absl::OkStatus());
    return;
  }
  recv.moving = true;
  recv.transfer = key;
  body = {&recv, here.size(), recv.bytes, {}};
}

void UcxTransport::CancelRecv(RecvRequest& recv) {
  inbound_.erase(recv.transfer);
  recv.moving = false;
}

void UcxTransport::Reply(int rank, const MessageHeader& header, Answer answer) {
  if (arriving_.peer == rank && arriving_.slot == header.slot) arriving_ = {};
  inbound_.erase(InboundKey(rank, header.slot));
  if (peers_[rank] == nullptr) return;
  Frame frame;
  frame.slot = header.slot;
  PostControl(*peers_[rank], answer == Answer::kTaken ? FrameType::kTaken : FrameType::kRefused, frame);
}

void UcxTransport::OnAnswer(Peer& peer, const Frame& frame) {
  if (const auto node = peer.ahead.extract(frame.slot); !node.empty()) peer.ahead_bytes -= node.mapped();
  const auto at = waiting_.find(frame.slot);
  if (at != waiting_.end() && at->second->peer == peer.rank) {  // else over, or given up in the meantime
    SendRequest& send = *at->second;
    const auto body = std::find_if(peer.outbound.begin(), peer.outbound.end(),
                                   [&](const Outbound& one) { return one.send == &send; });
    if (frame.type == FrameType::kClear && body != peer.outbound.end()) {
      body->cleared = true;
    } else if (frame.type != FrameType::kRefused) {
      waiting_.erase(at);
      send.owner->OnRequestDone(send.token, absl::OkStatus());
    } else {
      CancelSend(send);
      send.owner->OnRequestDone(send.token,
                                absl::InvalidArgumentError(absl::StrFormat(
                                    "rank %d refused %s from this rank: it called something else, or gave up",
                                    send.peer, Describe(send.signature))));
    }
  }
  PushBodies();
}

// Peers take turns, a piece each, as far as UCX keeps up.
bool UcxTransport::PushBodies() {
  bool moved = false;
  for (bool again = true; again;) {
    again = false;
    const std::vector<int> ranks(sending_.begin(), sending_.end());  // what ends may start another
    for (const int rank : ranks) {
      if (peers_[rank] != nullptr) again |= PushPiece(*peers_[rank]);
    }
    moved |= again;
  }
  return moved;
}

// Of the first message that may go on: in their order, so that what waits for them can begin.
bool UcxTransport::PushPiece(Peer& peer) {
  if (peer.pieces_in_flight >= PiecesInFlight(peer)) return false;
  const auto piece = [](const Outbound& body) {
    return std::min(body.send->bytes - body.offset, policy::kUcxPieceBytes);
  };
  const auto body = std::find_if(peer.outbound.begin(), peer.outbound.end(), [&](const Outbound& one) {
    return one.cleared || peer.ahead_bytes + piece(one) <= policy::kUcxAheadBytes;
  });
  if (body == peer.outbound.end()) return false;
  SendRequest& send = *body->send;
  const size_t bytes = piece(*body);
  std::unique_ptr<Packet> packet = NewPacket(FrameType::kPiece, bytes);
  packet->frame.slot = send.slot;
  packet->frame.offset = body->offset;
  send.Fetch(body->offset, bytes, packet->data.get());
  if (!body->cleared) {
    peer.ahead[send.slot] += bytes;
    peer.ahead_bytes += bytes;
  }
  body->offset += bytes;
  const bool last = body->offset == send.bytes;
  // A confirmed one waits for its clearance.
  const bool over = last && (body->cleared || !send.confirmed);
  if (last) peer.outbound.erase(body);
  if (peer.outbound.empty()) sending_.erase(peer.rank);
  if (over) waiting_.erase(send.slot);
  Post(peer, std::move(packet));
  if (over) send.owner->OnRequestDone(send.token, absl::OkStatus());
  return true;
}

void UcxTransport::OnPiece(Peer& peer, const Frame& frame, absl::Span<const std::byte> data) {
  const auto at = inbound_.find(InboundKey(peer.rank, frame.slot));
  if (at == inbound_.end()) return;  // given up
  Inbound& body = at->second;
  if (body.recv == nullptr) {
    if (frame.offset == body.kept.size()) body.kept.insert(body.kept.end(), data.begin(), data.end());
    return;
  }
  RecvRequest& recv = *body.recv;
  if (frame.offset > recv.bytes || data.size() > recv.bytes - frame.offset) return;
  recv.Deliver(data.data(), frame.offset, data.size());
  body.received += data.size();
  if (body.received < recv.bytes) return;
  inbound_.erase(at);
  recv.moving = false;
  recv.owner->OnRequestDone(recv.token, absl::OkStatus());
}

void UcxTransport::SendAbort(int rank, const MessageKey& key, const absl::Status& why) {
  if (peers_[rank] == nullptr) return;
  Frame frame;
  frame.key = key;
  frame.code = static_cast<uint8_t>(why.code());
  const absl::string_view text = why.message().substr(0, 1024);
  PostControl(*peers_[rank], FrameType::kAbort, frame,
              absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()), text.size()));
}

}  // namespace cohort::comm::ucx
