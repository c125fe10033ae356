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
  const int64_t look = std::min(now - std::exchange(last_look_, now), policy::kUcxLookNanos);
  for (size_t rank = 0; rank < peers_.size(); ++rank) {
    if (peers_[rank] == nullptr || peers_[rank]->gone) continue;
    Peer& peer = *peers_[rank];
    const bool asks = now - peer.last_ping >= policy::kUcxPingNanos;
    if (asks) peer.last_ping = now;
    for (size_t i = 0; i < peer.rails.size(); ++i) {
      Rail& rail = peer.rails[i];
      if (rail.buried) continue;
      rail.silent += look;
      if (asks && !rail.ping_in_flight) PostProbe(peer, i, FrameType::kPing);
      if (rail.silent > silence_ && rail.endpoint->broken.empty()) {
        rail.endpoint->broken =
            absl::StrFormat("no sign of life for %.1f s", static_cast<double>(rail.silent) / 1e9);
        trouble_ = true;
      }
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
    if (entry.second.recv != nullptr) recvs.push_back(entry.second.recv);
    return true;
  });
  const absl::Status status = absl::UnavailableError(peer.how);
  for (RecvRequest* recv : recvs) recv->moving = false;
  for (SendRequest* send : sends) send->owner->OnRequestDone(send->token, status);
  for (RecvRequest* recv : recvs) recv->owner->OnRequestDone(recv->token, status);
}

void UcxTransport::EndEndpoints(Peer& peer, const std::string& why) {
  for (const Rail& rail : peer.rails) rail.endpoint->port->End(*rail.endpoint, why);
}

void UcxTransport::PublishBegun(uint32_t context, uint32_t sequence) {
  board_[context % policy::kBoardEntries] = {context, sequence + 1};
}

void UcxTransport::SendPong(Peer& peer, uint8_t rail) {
  std::vector<BoardEntry> entries;
  std::copy_if(board_.begin(), board_.end(), std::back_inserter(entries),
               [](const BoardEntry& entry) { return entry.begun != 0; });
  PostProbe(peer, rail, FrameType::kPong,
            absl::MakeConstSpan(reinterpret_cast<const std::byte*>(entries.data()),
                                entries.size() * sizeof(BoardEntry)));
}

void UcxTransport::OnPong(Peer& peer, absl::Span<const std::byte> data) {
  peer.board.assign(policy::kBoardEntries, {});
  for (size_t at = 0; at + sizeof(BoardEntry) <= data.size(); at += sizeof(BoardEntry)) {
    BoardEntry entry;
    std::memcpy(&entry, data.data() + at, sizeof(entry));
    peer.board[entry.context % policy::kBoardEntries] = entry;
  }
  peer.board_time = NowNanos();
}

std::optional<uint32_t> UcxTransport::Begun(int rank, uint32_t context) const {
  if (peers_[rank] == nullptr) return std::nullopt;
  const Peer& peer = *peers_[rank];
  // An old answer would call a rank late that has come since.
  if (NowNanos() - peer.board_time > 3 * policy::kUcxPingNanos) return std::nullopt;
  const BoardEntry& entry = peer.board[context % policy::kBoardEntries];
  if (entry.begun == 0) return 0;
  return entry.context == context ? std::optional<uint32_t>(entry.begun) : std::nullopt;
}

}  // namespace cohort::comm::ucx
