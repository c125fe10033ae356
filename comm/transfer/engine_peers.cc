// Peers that come, go and are lost; rails to them that fail.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/doorbell.h"
#include "comm/transfer/engine.h"
#include "comm/transfer/policy.h"
#include "comm/transport/ucx/policy.h"

namespace cohort::comm::transfer {

std::string Engine::Name(const Peer& peer) const { return absl::StrCat("peer '", peer.name, "'"); }

std::string Engine::NameOf(PeerId id) {
  const Peer* peer = Find(id);
  return peer != nullptr ? Name(*peer) : absl::StrCat("removed peer ", static_cast<uint64_t>(id));
}

absl::Status Engine::Reach(PeerId id, Peer** peer) {
  *peer = Find(id);
  if (*peer == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("there is no peer ", static_cast<uint64_t>(id), ", or not any more"));
  }
  return (*peer)->lost ? (*peer)->why : absl::OkStatus();
}

// Which of the rails go with which of a peer's: those of one network; or, where either side's are named by its options,
// by their numbers.
absl::StatusOr<std::vector<std::pair<int, int>>> Engine::PairRails(const Card& card) const {
  std::vector<ucx::Interface> theirs;
  for (const Card::Rail& rail : card.rails) {
    if (rail.interface.empty() || !options_.rails.empty()) continue;
    COHORT_ASSIGN_OR_RETURN(theirs.emplace_back(), ucx::Interface::FromText(rail.interface));
  }
  if (theirs.size() == card.rails.size()) return ucx::PairInterfaces(interfaces_, theirs);
  std::vector<std::pair<int, int>> pairs;
  for (size_t i = 0; i < std::max(rails_.size(), card.rails.size()); ++i)
    pairs.emplace_back(i % rails_.size(), i % card.rails.size());
  return pairs;
}

absl::StatusOr<PeerId> Engine::AddPeer(const std::string& text,
                                       std::function<void(PeerId, const absl::Status&)> on_lost) {
  COHORT_ASSIGN_OR_RETURN(const Card card, Card::FromText(text));
  const std::lock_guard lock(mutex_);
  for (const auto& [id, peer] : peers_) {
    if (peer->engine == card.engine)
      return absl::AlreadyExistsError(absl::StrCat(Name(*peer), " was added before; remove it first"));
  }
  auto peer = std::make_unique<Peer>();
  peer->name = card.name;
  peer->engine = card.engine;
  peer->incarnation = ++next_incarnation_;
  peer->on_lost = std::move(on_lost);
  if (hub_ != nullptr && !card.local.empty() && card.host == card_.host) {
    // Where that fails, as between containers, the network serves.
    auto ring = RingLink::Attach(hub_.get(), card.local, card_.engine, card.engine);
    if (ring.ok()) {
      Way& way = peer->ways.emplace_back();
      peer->ring = way.ring = ring->get();
      way.link = *std::move(ring);
    }
  }
  if (peer->ways.empty()) {
    COHORT_ASSIGN_OR_RETURN(const auto pairs, PairRails(card));
    for (const auto& [own, theirs] : pairs) {
      COHORT_ASSIGN_OR_RETURN(auto link, rails_[own]->Connect(card.rails[theirs].address));
      peer->ways.emplace_back().link = std::move(link);
    }
  }
  peer->id = PeerId{peer_at_.size()};
  Peer& added = *peer;
  peer_at_.push_back(&added);
  if (added.ring == nullptr) ++remote_peers_;
  if (added.ring != nullptr) near_.push_back(&added);
  by_incarnation_[added.incarnation] = &added;
  peers_[static_cast<uint64_t>(added.id)] = std::move(peer);
  for (size_t way = 0; way < added.ways.size(); ++way) SendHello(added, way, /*answer=*/true);
  WakeSleeper();
  return added.id;
}

void Engine::SendHello(Peer& peer, size_t way, bool answer) {
  Frame frame;
  frame.type = FrameType::kHello;
  frame.flags = answer ? kAnswerHello : 0;
  frame.op = card_.engine;
  SendControl(peer, way, frame);
}

void Engine::OnHello(const Frame& frame) {
  const auto at = std::find_if(peers_.begin(), peers_.end(),
                               [&](const auto& one) { return one.second->engine == frame.op; });
  if (at == peers_.end()) return;  // it will hear from this side when it is added
  Peer& peer = *at->second;
  // Either it answers this incarnation, or it knows of none yet.
  if (peer.lost || (frame.to != 0 && frame.to != peer.incarnation) || frame.link >= peer.ways.size()) return;
  if (frame.from < peer.their_incarnation) return;  // of an incarnation that is over, late on its rail
  if (frame.from > peer.their_incarnation) {
    if (peer.confirmed) {  // removed and added again: what was in flight is forgotten there
      peer.bye = true;
      trouble_ = true;
      return;
    }
    peer.their_incarnation = frame.from;
  }
  Way& way = peer.ways[frame.link];
  way.silent = 0;
  const bool answers = frame.to == peer.incarnation;
  // Only an answer shows that the other incarnation is the present one.
  if ((frame.flags & kAnswerHello) != 0) SendHello(peer, frame.link, /*answer=*/!answers && !way.heard);
  if (!answers || way.heard || way.buried) return;
  peer.confirmed = way.heard = true;
  for (auto& [op, write] : peer.outbound) Assign(peer, op, write);
  backlog_ = true;  // the next turn sends them
}

absl::Status Engine::RemovePeer(PeerId id) {
  const std::lock_guard lock(mutex_);
  Peer* peer = Find(id);
  if (peer == nullptr)
    return absl::NotFoundError(absl::StrCat("there is no peer ", static_cast<uint64_t>(id)));
  if (peer->ring != nullptr && !peer->ring->Revoke(policy::kTransferRevokeNanos)) {
    return absl::DeadlineExceededError(absl::StrCat(
        Name(*peer),
        " is in the middle of a write into this engine's memory, and does not go on: is it stopped? "
        "Remove it when it has ended or goes on"));
  }
  if (!peer->lost) {
    SayDone(Say::kAll);
    Frame bye;
    bye.type = FrameType::kBye;
    for (size_t way = 0; way < peer->ways.size(); ++way) SendControl(*peer, way, bye);
    peer->on_lost = nullptr;
    Lose(*peer, absl::CancelledError(absl::StrCat(Name(*peer), " was removed")));
  }
  // A moment for the last frames.
  for (Way& way : peer->ways) {
    if (!way.buried) leaving_.emplace_back(NowNanos() + policy::kTransferLingerNanos, std::move(way.link));
  }
  std::erase_if(pulls_, [&](const Pull& pull) { return pull.peer == id; });
  if (peer->ring == nullptr) --remote_peers_;
  std::erase(near_, peer);
  peer_at_[static_cast<uint64_t>(id)] = nullptr;
  by_incarnation_.erase(peer->incarnation);
  peers_.erase(static_cast<uint64_t>(id));
  WakeSleeper();
  return absl::OkStatus();
}

absl::StatusOr<int> Engine::LiveRails(PeerId id) const {
  const std::lock_guard lock(mutex_);
  const Peer* peer = Find(id);
  if (peer == nullptr) return absl::NotFoundError("there is no such peer");
  if (peer->lost) return peer->why;
  return static_cast<int>(
      std::count_if(peer->ways.begin(), peer->ways.end(), [](const Way& way) { return way.Live(); }));
}

// Signs of life; outside of UCX's callbacks.
void Engine::CheckPeer(Peer& peer, int64_t now, int64_t look) {
  if (peer.bye) {
    Lose(peer, absl::UnavailableError(absl::StrCat(Name(peer), " has left or removed this engine")));
    return;
  }
  // Only who is waited for is asked.
  const bool waits =
      !peer.outbound.empty() || std::any_of(transfers_.begin(), transfers_.end(), [&](const auto& transfer) {
        return std::find(transfer->awaited.begin(), transfer->awaited.end(), peer.id) !=
               transfer->awaited.end();
      });
  for (size_t i = 0; i < peer.ways.size() && !peer.lost; ++i) {
    Way& way = peer.ways[i];
    if (way.buried) continue;
    if (way.ring != nullptr) {
      way.ring->CheckLife();
      way.ring->DropWithdrawn();
    } else if (waits && way.heard) {
      way.silent += look;
      if (way.silent > policy::kUcxPingNanos && now - way.last_ping > policy::kUcxPingNanos &&
          way.control.empty()) {
        way.last_ping = now;
        Frame ping;
        ping.type = FrameType::kPing;
        SendControl(peer, i, ping);
      }
      if (way.silent > silence_)
        way.link->End(absl::StrFormat("no sign of life for %.1f s", static_cast<double>(way.silent) / 1e9));
    } else {
      way.silent = 0;
    }
    if (!way.link->broken().empty()) BuryWay(peer, i);
  }
}

// Its shards take other rails; without any, the peer is lost.
void Engine::BuryWay(Peer& peer, size_t number) {
  Way& dead = peer.ways[number];
  const std::string how = dead.link->broken();
  dead.link->End(how);
  dead.buried = true;
  const std::deque<Control> unsent = std::move(dead.control);
  dead.parts.clear();
  if (std::all_of(peer.ways.begin(), peer.ways.end(), [](const Way& way) { return way.buried; })) {
    Lose(peer, absl::UnavailableError(absl::StrCat(Name(peer), " was lost: ", how)));
    return;
  }
  for (const Control& control : unsent) {
    if (control.frame.type != FrameType::kHello) SendControl(peer, number, control.frame, control.payload);
  }
  for (auto& [op, write] : peer.outbound) {
    for (Part& part : write.parts) {
      if (part.shard.rail == static_cast<int>(number)) part.shard.rail = -1;
    }
    Assign(peer, op, write);
  }
}

void Engine::Lose(Peer& peer, absl::Status why) {
  if (peer.lost) return;
  peer.lost = true;
  peer.why = why;
  while (!peer.outbound.empty()) WriteOver(peer, peer.outbound.begin()->first, why);
  while (!peer.small.empty()) WriteOver(peer, peer.small.front().op, why);
  std::vector<std::shared_ptr<Transfer>> waiting;
  for (const auto& transfer : transfers_) {
    if (std::find(transfer->awaited.begin(), transfer->awaited.end(), peer.id) != transfer->awaited.end())
      waiting.push_back(transfer);
  }
  for (const auto& transfer : waiting) GiveUp(*transfer, why);
  peer.inbound.clear();
  if (peer.on_lost != nullptr) {
    calls_.push_back([call = std::move(peer.on_lost), id = peer.id, why] { call(id, why); });
    peer.on_lost = nullptr;
    TakeOver();
    WakeSleeper();
  }
}

}  // namespace cohort::comm::transfer
