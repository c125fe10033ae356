// Messages, small and large.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "comm/transport/ucx/ucx_transport.h"

namespace cohort::comm::ucx {
namespace {

uint64_t PrefixKey(int peer, uint32_t slot) { return static_cast<uint64_t>(peer) << 32 | slot; }

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
  const bool waits = !whole || send.confirmed;
  if (waits) {
    while (next_slot_ == 0 || waiting_.count(next_slot_) > 0) ++next_slot_;
    send.slot = next_slot_++;
    packet->frame.slot = send.slot;
    waiting_[send.slot] = &send;
  }
  Post(*peers_[send.peer], std::move(packet));
  if (!waits) send.owner->OnRequestDone(send.token, absl::OkStatus());
}

void UcxTransport::CancelSend(SendRequest& send) {
  if (const auto at = waiting_.find(send.slot); at != waiting_.end() && at->second == &send)
    waiting_.erase(at);
  outbound_.remove_if([&](const Outbound& body) { return body.send == &send; });
}

void UcxTransport::OnAnnouncement(Peer& peer, const Frame& frame, absl::Span<const std::byte> data) {
  if (data.size() >= frame.bytes) return;
  arriving_ = {peer.rank, frame.slot, data.data(), data.size()};
  // Where this does not wait for its receive, Accept or Reply is called inside and takes what has come.
  events_->OnAnnouncement(*this, peer.rank, {frame.key, frame.signature, frame.bytes, frame.slot, 0, 0});
  if (arriving_.peer >= 0) prefixes_[PrefixKey(peer.rank, frame.slot)].assign(data.begin(), data.end());
  arriving_ = {};
}

void UcxTransport::Accept(RecvRequest& recv, const MessageHeader& header) {
  if (const absl::Status reach = Reach(recv.peer); !reach.ok()) {
    recv.owner->OnRequestDone(recv.token, reach);
    return;
  }
  Prefix prefix;
  std::vector<std::byte> kept;
  if (arriving_.peer == recv.peer && arriving_.slot == header.slot) {
    prefix = std::exchange(arriving_, {});
  } else if (auto node = prefixes_.extract(PrefixKey(recv.peer, header.slot)); !node.empty()) {
    kept = std::move(node.mapped());
    prefix.data = kept.data();
    prefix.bytes = kept.size();
  }
  recv.moving = true;
  recv.transfer = next_transfer_++;
  inbound_[recv.transfer] = {&recv, prefix.bytes};
  Frame clear;
  clear.slot = header.slot;
  clear.transfer = recv.transfer;
  clear.offset = prefix.bytes;
  PostControl(*peers_[recv.peer], FrameType::kClear, clear);
  if (prefix.bytes > 0) recv.Deliver(prefix.data, 0, prefix.bytes);
}

void UcxTransport::CancelRecv(RecvRequest& recv) {
  inbound_.erase(recv.transfer);
  recv.moving = false;
}

void UcxTransport::Reply(int rank, const MessageHeader& header, Answer answer) {
  if (arriving_.peer == rank && arriving_.slot == header.slot) arriving_ = {};
  prefixes_.erase(PrefixKey(rank, header.slot));
  if (peers_[rank] == nullptr) return;
  Frame frame;
  frame.slot = header.slot;
  PostControl(*peers_[rank], answer == Answer::kTaken ? FrameType::kTaken : FrameType::kRefused, frame);
}

void UcxTransport::OnAnswer(Peer& peer, const Frame& frame) {
  const auto at = waiting_.find(frame.slot);
  if (at == waiting_.end() || at->second->peer != peer.rank) return;  // given up in the meantime
  SendRequest& send = *at->second;
  waiting_.erase(at);
  if (frame.type == FrameType::kClear) {
    outbound_.push_back({&send, frame.transfer, frame.offset});
    PushBodies();
  } else if (frame.type == FrameType::kTaken) {
    send.owner->OnRequestDone(send.token, absl::OkStatus());
  } else {
    send.owner->OnRequestDone(
        send.token, absl::InvalidArgumentError(absl::StrFormat(
                        "rank %d refused %s from this rank: it called something else, or gave up", send.peer,
                        Describe(send.signature))));
  }
}

// Bodies take turns, a piece each, as far as UCX keeps up.
bool UcxTransport::PushBodies() {
  bool moved = false;
  for (size_t blocked = 0; blocked < outbound_.size();) {
    Outbound body = outbound_.front();
    outbound_.pop_front();
    Peer& peer = *peers_[body.send->peer];
    if (peer.pieces_in_flight >= PiecesInFlight(peer)) {
      outbound_.push_back(body);
      ++blocked;
      continue;
    }
    blocked = 0;
    moved = true;
    const size_t bytes = std::min(body.send->bytes - body.offset, policy::kUcxPieceBytes);
    std::unique_ptr<Packet> packet = NewPacket(FrameType::kPiece, bytes);
    packet->frame.transfer = body.transfer;
    packet->frame.offset = body.offset;
    body.send->Fetch(body.offset, bytes, packet->data.get());
    Post(peer, std::move(packet));
    body.offset += bytes;
    if (body.offset < body.send->bytes) {
      outbound_.push_back(body);
    } else {
      body.send->owner->OnRequestDone(body.send->token, absl::OkStatus());
    }
  }
  return moved;
}

void UcxTransport::OnPiece(const Frame& frame, absl::Span<const std::byte> data) {
  const auto at = inbound_.find(frame.transfer);
  if (at == inbound_.end()) return;  // given up
  RecvRequest& recv = *at->second.recv;
  if (frame.offset > recv.bytes || data.size() > recv.bytes - frame.offset) return;
  recv.Deliver(data.data(), frame.offset, data.size());
  at->second.received += data.size();
  if (at->second.received < recv.bytes) return;
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
