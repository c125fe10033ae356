// Signs of life, and peers that are lost or leave.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "comm/doorbell.h"
#include "comm/transport/ucx/ucx_transport.h"

namespace cohort::comm::ucx {

void UcxTransport::CheckPeers() {
  const int64_t now = NowNanos();
  const int64_t look = std::min(now - std::exchange(last_look_, now), policy::kSilenceLookNanos);
  for (size_t rank = 0; rank < peers_.size(); ++rank) {
    if (peers_[rank] == nullptr || peers_[rank]->gone) continue;
    Peer& peer = *peers_[rank];
    // Whoever has not come yet, a newcomer, is missed by the deadline of those who wait for it.
    if (!peer.heard) {
      Greet(peer, now);
      continue;
    }
    peer.unheard += look;
    peer.silent += look;
    if (!peer.ping_in_flight && now - peer.last_ping >= policy::kUcxPingNanos) {
      peer.last_ping = now;
      PostControl(peer, FrameType::kPing, {});
    }
    if (peer.silent > silence_ && peer.broken.empty()) {
      peer.broken = absl::StrFormat("no sign of life for %.1f s", static_cast<double>(peer.silent) / 1e9);
      trouble_ = true;
    }
  }
  if (trouble_) BuryPeers();
}

// Not inside of UCX's callbacks.
bool UcxTransport::BuryPeers() {
  trouble_ = false;
  bool moved = false;
  for (size_t rank = 0; rank < peers_.size(); ++rank) {
    if (peers_[rank] == nullptr || peers_[rank]->gone) continue;
    Peer& peer = *peers_[rank];
    if (peer.leaving && (peer.frames_in > peer.last_frame || !peer.broken.empty())) {
      Gone(peer, /*left=*/true, absl::StrFormat("rank %d has left", peer.rank));
    } else if (!peer.broken.empty()) {
      Gone(peer, /*left=*/false, absl::StrFormat("rank %d was lost: %s", peer.rank, peer.broken));
    } else {
      trouble_ |= peer.leaving;
      continue;
    }
    moved = true;
  }
  return moved;
}

void UcxTransport::Gone(Peer& peer, bool left, std::string how) {
  peer.gone = true;
  peer.left = left;
  peer.how = std::move(how);
  peer.held.clear();
  EndEndpoint(peer);
  FailRequests(peer);
  events_->OnPeerGone(peer.rank, left, peer.how);
}

void UcxTransport::FailRequests(const Peer& peer) {
  // Off the tables first: who hears of one failure may give up others. Their objects live on until later.
  std::vector<SendRequest*> sends;
  std::vector<RecvRequest*> recvs;
  std::erase_if(waiting_, [&](const auto& entry) {
    if (entry.second->peer != peer.rank) return false;
    sends.push_back(entry.second);
    return true;
  });
  outbound_.remove_if([&](const Outbound& body) {
    if (body.send->peer != peer.rank) return false;
    sends.push_back(body.send);
    return true;
  });
  std::erase_if(inbound_, [&](const auto& entry) {
    if (entry.second.recv->peer != peer.rank) return false;
    recvs.push_back(entry.second.recv);
    return true;
  });
  std::erase_if(prefixes_,
                [&](const auto& entry) { return static_cast<int>(entry.first >> 32) == peer.rank; });
  const absl::Status status = absl::UnavailableError(peer.how);
  for (RecvRequest* recv : recvs) recv->moving = false;
  for (SendRequest* send : sends) send->owner->OnRequestDone(send->token, status);
  for (RecvRequest* recv : recvs) recv->owner->OnRequestDone(recv->token, status);
}

void UcxTransport::EndEndpoint(Peer& peer) {
  if (peer.endpoint == nullptr) return;
  ucp_request_param_t param = {};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_EP_CLOSE_FLAG_FORCE;
  const ucs_status_ptr_t closing = ucp_ep_close_nbx(std::exchange(peer.endpoint, nullptr), &param);
  if (UCS_PTR_IS_PTR(closing)) closing_.push_back(closing);
}

void UcxTransport::PublishBegun(uint32_t context, uint32_t sequence) {
  board_[context % policy::kBoardEntries] = {context, sequence + 1};
}

void UcxTransport::PublishWaiting(int64_t now, absl::Span<const int> awaited) {
  awaited = awaited.subspan(0, policy::kAwaitedPublished);
  sign_ = {now, {awaited.begin(), awaited.end()}};
}

std::optional<WaitingSign> UcxTransport::LastWaiting(int rank) const {
  if (rank >= static_cast<int>(peers_.size()) || peers_[rank] == nullptr) return std::nullopt;
  return peers_[rank]->sign;
}

void UcxTransport::Greet(Peer& peer, int64_t now) {
  if (peer.endpoint == nullptr || now - peer.last_hello < policy::kUcxHelloNanos) return;
  peer.last_hello = now;
  Frame hello;
  hello.slot = peer.heard ? 1 : 0;
  PostControl(peer, FrameType::kHello, hello);
}

void UcxTransport::OnHello(Peer& peer, const Frame& frame) {
  if (!std::exchange(peer.heard, true)) {
    peer.unheard = peer.silent = 0;
    if (peer.endpoint == nullptr) greeted_ = peer.greeted = true;
  }
  if (peer.endpoint == nullptr) return;
  for (auto& packet : std::exchange(peer.held, {})) Post(peer, std::move(packet));
  if (frame.type != FrameType::kHello || frame.slot != 0) return;
  peer.last_hello = 0;
  Greet(peer, NowNanos());
}

void UcxTransport::SendPong(Peer& peer) {
  std::vector<BoardEntry> entries;
  std::copy_if(board_.begin(), board_.end(), std::back_inserter(entries),
               [](const BoardEntry& entry) { return entry.begun != 0; });
  std::vector<int32_t> awaited;
  Frame pong;
  if (sign_.has_value()) {
    awaited.assign(sign_->awaited.begin(), sign_->awaited.end());
    pong.slot = static_cast<uint32_t>(awaited.size());
    pong.offset = static_cast<uint64_t>(NowNanos() - sign_->when);
  }
  std::vector<std::byte> data(entries.size() * sizeof(BoardEntry) + awaited.size() * sizeof(int32_t));
  if (!entries.empty()) std::memcpy(data.data(), entries.data(), entries.size() * sizeof(BoardEntry));
  if (!awaited.empty()) {
    std::memcpy(data.data() + entries.size() * sizeof(BoardEntry), awaited.data(),
                awaited.size() * sizeof(int32_t));
  }
  PostControl(peer, FrameType::kPong, pong, data);
}

void UcxTransport::OnPong(Peer& peer, const Frame& frame, absl::Span<const std::byte> data) {
  const size_t awaited_bytes = size_t{frame.slot} * sizeof(int32_t);
  if (awaited_bytes > data.size()) return;
  const size_t board_bytes = data.size() - awaited_bytes;
  peer.board.assign(policy::kBoardEntries, {});
  for (size_t at = 0; at + sizeof(BoardEntry) <= board_bytes; at += sizeof(BoardEntry)) {
    BoardEntry entry;
    std::memcpy(&entry, data.data() + at, sizeof(entry));
    peer.board[entry.context % policy::kBoardEntries] = entry;
  }
  peer.board_time = NowNanos();
  // A rank that waits for nobody has no sign.
  peer.sign.reset();
  if (frame.slot == 0) return;
  peer.sign = {peer.board_time - static_cast<int64_t>(std::min<uint64_t>(frame.offset, INT64_MAX / 2)), {}};
  for (size_t at = board_bytes; at < data.size(); at += sizeof(int32_t)) {
    int32_t rank = -1;
    std::memcpy(&rank, data.data() + at, sizeof(rank));
    peer.sign->awaited.push_back(rank);
  }
}

std::optional<uint32_t> UcxTransport::Begun(int rank, uint32_t context) const {
  if (rank >= static_cast<int>(peers_.size()) || peers_[rank] == nullptr) return std::nullopt;
  const Peer& peer = *peers_[rank];
  // An old answer would call a rank late that has come since.
  if (NowNanos() - peer.board_time > 3 * policy::kUcxPingNanos) return std::nullopt;
  const BoardEntry& entry = peer.board[context % policy::kBoardEntries];
  if (entry.begun == 0) return 0;
  return entry.context == context ? std::optional<uint32_t>(entry.begun) : std::nullopt;
}

}  // namespace cohort::comm::ucx
