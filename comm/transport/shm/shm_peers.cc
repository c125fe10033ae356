// Peers: how ranks find each other's memory, who is gone, and what they publish of themselves.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "comm/check.h"
#include "comm/policy.h"
#include "comm/transport/peer_silence.h"
#include "comm/transport/shm/policy.h"
#include "comm/transport/shm/shm_transport.h"

namespace cohort::comm::shm {

namespace {

// Peers read this to find out whether they may.
constexpr uint64_t kProbe = 0x636f686f72743031;
const volatile uint64_t probe_word = kProbe;

}  // namespace

ShmTransport::Peer::Peer(int peer_rank, Process peer_process, std::unique_ptr<Segment> peer_segment)
    : rank(peer_rank), process(std::move(peer_process)), segment(std::move(peer_segment)) {}

ShmTransport::Peer::~Peer() {
  Segment::Unmap(out_ring);
  Segment::Unmap(in_ring);
}

ShmTransport::ShmTransport(int rank, int size, TransportEvents* events, std::unique_ptr<Segment> own)
    : rank_(rank),
      silence_(PeerSilenceNanos()),
      events_(events),
      own_(std::move(own)),
      peers_(size),
      generations_(policy::kShmSlots, 0) {
  for (uint32_t slot = policy::kShmSlots - 1; slot > 0; --slot) free_slots_.push_back(slot);
  const char* single_copy = std::getenv("COHORT_SHM_SINGLE_COPY");
  may_read_ = single_copy == nullptr || absl::string_view(single_copy) != "0";
}

ShmTransport::~ShmTransport() = default;

absl::StatusOr<std::unique_ptr<ShmTransport>> ShmTransport::Create(int rank, int size,
                                                                   TransportEvents* events) {
  COHORT_ASSIGN_OR_RETURN(auto own, Segment::Create());
  AllowReaders();
  return std::unique_ptr<ShmTransport>(new ShmTransport(rank, size, events, std::move(own)));
}

std::string ShmTransport::Address() const {
  const absl::StatusOr<uint64_t> start = StartTime(getpid());
  return absl::StrCat(getpid(), " ", start.value_or(0), " ", own_->fd(), " ", (*own_)->nonce, " ",
                      reinterpret_cast<uintptr_t>(&probe_word));
}

namespace {

struct PeerAddress {
  int pid = 0, fd = -1;
  uint64_t start = 0, nonce = 0, probe = 0;
};

bool Parse(const std::string& text, PeerAddress* address) {
  std::istringstream fields(text);
  return static_cast<bool>(fields >> address->pid >> address->start >> address->fd >> address->nonce >>
                           address->probe);
}

}  // namespace

bool ShmTransport::Lives(const std::string& address) {
  PeerAddress parsed;
  return Parse(address, &parsed) && Process::Open(parsed.pid, parsed.start).ok();
}

absl::Status ShmTransport::Attach(int peer, const std::string& address) {
  PeerAddress parsed;
  if (!Parse(address, &parsed)) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", peer, " gave the address '", address, "'"));
  }
  COHORT_ASSIGN_OR_RETURN(Process process, Process::Open(parsed.pid, parsed.start));
  COHORT_ASSIGN_OR_RETURN(auto segment, Segment::Attach(parsed.pid, parsed.fd, parsed.nonce));
  auto entry = std::make_unique<Peer>(peer, std::move(process), std::move(segment));
  COHORT_ASSIGN_OR_RETURN(entry->out_ring, entry->segment->MapRing(rank_));
  COHORT_ASSIGN_OR_RETURN(entry->in_ring, own_->MapRing(peer));
  entry->out = RingProducer(entry->out_ring);
  entry->in = RingConsumer(entry->in_ring);
  uint64_t word = 0;
  entry->readable =
      may_read_ &&
      entry->process.Read(parsed.probe, reinterpret_cast<std::byte*>(&word), sizeof(word)).ok() &&
      word == kProbe;
  if (!entry->readable) entry->in_ring->cannot_borrow.store(1, std::memory_order_relaxed);
  if (peer >= static_cast<int>(peers_.size())) peers_.resize(peer + 1);
  live_.push_back(entry.get());
  peers_[peer] = std::move(entry);
  return absl::OkStatus();
}

void ShmTransport::Detach(int peer) {
  if (peer >= static_cast<int>(peers_.size()) || peers_[peer] == nullptr) return;
  Peer& gone = *peers_[peer];
  gone.out_ring->dismissed.store(1, std::memory_order_seq_cst);
  (*gone.segment)->doorbell.Ring();
  if (!gone.gone) backlog_ -= gone.backlog.size();
  std::erase(live_, &gone);
  std::erase(pulling_, &gone);
  peers_[peer].reset();
  own_->Drop(peer);
}

absl::Status ShmTransport::GoneStatus(const Peer& peer) const { return absl::UnavailableError(peer.how); }

// A stopped process holds its group up as a lost one does. How it is with those of other hosts, their silence tells.
void ShmTransport::LookWhoIsStopped() {
  const int64_t now = NowNanos();
  if (now - last_look_ < policy::kSilenceLookNanos) return;
  last_look_ = now;
  for (Peer* peer : live_) {
    if (peer->gone) continue;
    // Who speaks runs, and need not be asked for.
    const bool stopped = !std::exchange(peer->spoke, false) && peer->process.Stopped();
    peer->stopped = stopped ? peer->stopped + policy::kSilenceLookNanos : 0;
  }
}

void ShmTransport::CheckPeers() {
  LookWhoIsStopped();
  for (size_t i = 0; i < live_.size(); ++i) {
    Peer& peer = *live_[i];
    if (peer.gone) continue;
    const bool left = (*peer.segment)->closed.load(std::memory_order_acquire) != 0;
    const bool dismissed = peer.in_ring->dismissed.load(std::memory_order_acquire) != 0;
    const bool alive = peer.process.Alive();
    if (!left && !dismissed && alive && peer.stopped <= silence_) continue;
    if (left) {
      peer.how = absl::StrFormat("rank %d has left (process %d)", peer.rank, peer.process.pid());
    } else {
      peer.how = absl::StrFormat(
          "rank %d was lost: its process %d %s", peer.rank, peer.process.pid(),
          alive ? absl::StrFormat("has been stopped for %.1f s", static_cast<double>(peer.stopped) / 1e9)
                : "ended");
    }
    // What it sent before it went still counts.
    size_t budget = SIZE_MAX;
    while (Drain(peer, &budget)) {
    }
    LookAtSlots();  // and what it took
    peer.gone = true;
    peer.left = left;
    peer.lender.Close();
    backlog_ -= peer.backlog.size();
    const std::deque<Outgoing> unsent = std::move(peer.backlog);
    peer.backlog.clear();
    const absl::Status status = GoneStatus(peer);
    for (const Outgoing& outgoing : unsent) {
      if (outgoing.send != nullptr) outgoing.send->owner->OnRequestDone(outgoing.send->token, status);
    }
    if (dismissed) {
      events_->OnDismissed(peer.rank);
    } else {
      events_->OnPeerGone(peer.rank, left, status.message());
    }
  }
}

void ShmTransport::PublishBegun(uint32_t context, uint32_t sequence) {
  (*own_)->board[context % policy::kBoardEntries].store(static_cast<uint64_t>(context) << 32 | (sequence + 1),
                                                        std::memory_order_relaxed);
}

std::optional<uint32_t> ShmTransport::Begun(int peer, uint32_t context) const {
  if (peer >= static_cast<int>(peers_.size()) || peers_[peer] == nullptr) return std::nullopt;
  const uint64_t word =
      (*peers_[peer]->segment)->board[context % policy::kBoardEntries].load(std::memory_order_relaxed);
  // Numbers are those of the last begun operation plus one: 0 where the group has begun none.
  if (word >> 32 != context) return word == 0 ? std::optional<uint32_t>(0) : std::nullopt;
  return static_cast<uint32_t>(word);
}

// Advice, not a lock: a reader that sees half of an update blames one rank more or less.
void ShmTransport::PublishWaiting(int64_t now, absl::Span<const int> awaited) {
  for (size_t i = 0; i < policy::kAwaitedPublished; ++i) {
    const int32_t rank = i < awaited.size() ? awaited[i] : -1;
    (*own_)->awaited[i].store(rank, std::memory_order_relaxed);
  }
  (*own_)->waiting.store(now, std::memory_order_release);
}

std::optional<WaitingSign> ShmTransport::LastWaiting(int peer) const {
  if (peer >= static_cast<int>(peers_.size()) || peers_[peer] == nullptr) return std::nullopt;
  const Segment& segment = *peers_[peer]->segment;
  WaitingSign sign;
  sign.when = segment->waiting.load(std::memory_order_acquire);
  for (const auto& entry : segment->awaited) {
    const int32_t rank = entry.load(std::memory_order_relaxed);
    if (rank < 0) break;
    sign.awaited.push_back(rank);
  }
  return sign;
}

}  // namespace cohort::comm::shm
