// Signs of life, and peers that are lost or leave.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "comm/doorbell.h"
#include "comm/policy.h"
#include "comm/transport/ucx/policy.h"
#include "comm/transport/ucx/ucx_transport.h"

namespace cohort::comm::ucx {

void UcxTransport::CheckPeers() {
  LookForSilence();
  if (trouble_) BuryPeers();
}

// Asks peers for signs of life, and breaks the rails of those that give none.
void UcxTransport::LookForSilence() {
  const int64_t now = NowNanos();
  const int64_t look = std::min(now - std::exchange(last_look_, now), policy::kSilenceLookNanos);
  for (size_t rank = 0; rank < peers_.size(); ++rank) {
    if (peers_[rank] == nullptr || peers_[rank]->gone) continue;
    Peer& peer = *peers_[rank];
    // Whoever has not come yet, a newcomer, is missed by the deadline of those who wait for it.
    if (!peer.heard) {
      if (!closed_) Greet(peer, now);
      continue;
    }
    const bool asks = now - peer.last_ping >= policy::kUcxPingNanos;
    if (asks) peer.last_ping = now;
    for (size_t i = 0; i < peer.rails.size(); ++i) {
      Rail& rail = peer.rails[i];
      if (rail.buried) continue;
      rail.unheard += look;
      rail.silent += look;
      if (asks && !rail.ping_in_flight) PostProbe(peer, i, FrameType::kPing);
      if (rail.silent > silence_ && rail.endpoint->broken.empty()) {
        rail.endpoint->broken =
            absl::StrFormat("no sign of life for %.1f s", static_cast<double>(rail.silent) / 1e9);
        trouble_ = true;
      }
    }
  }
}

// Not inside of UCX's callbacks.
bool UcxTransport::BuryPeers() {
  trouble_ = false;
  bool moved = false;
  for (size_t rank = 0; rank < peers_.size(); ++rank) {
    if (peers_[rank] == nullptr || peers_[rank]->gone) continue;
    Peer& peer = *peers_[rank];
    std::string how;
    const bool reached = BuryRails(peer, &how);
    if (peer.leaving && (peer.frames_in > peer.last_frame || !reached)) {
      Gone(peer, /*left=*/true, absl::StrFormat("rank %d has left", peer.rank));
    } else if (!reached) {
      Gone(peer, /*left=*/false, absl::StrFormat("rank %d was lost: %s", peer.rank, how));
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
  EndEndpoints(peer, peer.how);
  FailRequests(peer);
  events_->OnPeerGone(peer.rank, left, peer.how);
}

void UcxTransport::FailRequests(Peer& peer) {
  // Off the tables first: who hears of one failure may give up others. Their objects live on until later.
  std::vector<SendRequest*> sends;
  std::vector<RecvRequest*> recvs;
  std::erase_if(waiting_, [&](const auto& entry) {
    if (entry.second->peer != peer.rank) return false;
    sends.push_back(entry.second);
    return true;
  });
  peer.outbound.clear();
  sending_.erase(peer.rank);
  std::erase_if(inbound_, [&](const auto& entry) {
    if (static_cast<int>(entry.first >> 32) != peer.rank) return false;
    const Inbound& body = entry.second;
    if (body.recv != nullptr) recvs.push_back(body.recv);
    // Like a small message, one that has come whole stays for its receive: its sender may have left as it was done.
    return body.recv != nullptr || !body.complete();
  });
  const absl::Status status = absl::UnavailableError(peer.how);
  for (RecvRequest* recv : recvs) recv->moving = false;
  for (SendRequest* send : sends) send->owner->OnRequestDone(send->token, status);
  for (RecvRequest* recv : recvs) recv->owner->OnRequestDone(recv->token, status);
}

// What FailRequests has left.
void UcxTransport::DropBodies(const Peer& peer) {
  std::erase_if(inbound_,
                [&](const auto& entry) { return static_cast<int>(entry.first >> 32) == peer.rank; });
}

void UcxTransport::EndEndpoints(Peer& peer, const std::string& why) {
  for (const Rail& rail : peer.rails) rail.endpoint->port->End(*rail.endpoint, why);
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

void UcxTransport::SayHello(Peer& peer, size_t rail, bool asks) {
  Frame hello;
  hello.slot = asks ? 0 : 1;
  PostProbe(peer, rail, FrameType::kHello, hello);
}

// The peer drops what comes before it has attached, so it is asked again and again; but nothing piles up in UCX.
void UcxTransport::Greet(Peer& peer, int64_t now) {
  if (now - peer.last_hello < policy::kUcxHelloNanos) return;
  peer.last_hello = now;
  for (size_t i = 0; i < peer.rails.size(); ++i) {
    if (peer.rails[i].endpoint->in_flight == 0) SayHello(peer, i, /*asks=*/true);
  }
}

void UcxTransport::SendPong(Peer& peer, uint8_t rail) {
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
  PostProbe(peer, rail, FrameType::kPong, pong, data);
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
