// Connecting, and the flow of entries through the rings. Bodies of large messages: shm_bodies.cc.
#include "comm/transport/shm/shm_transport.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "comm/check.h"
#include "comm/transport/peer_silence.h"

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
  peers_[peer].reset();
  own_->Drop(peer);
}

absl::Status ShmTransport::GoneStatus(const Peer& peer) const { return absl::UnavailableError(peer.how); }

void ShmTransport::Send(SendRequest& send) {
  Peer& peer = At(send.peer);
  if (peer.gone) {
    send.owner->OnRequestDone(send.token, GoneStatus(peer));
    return;
  }
  if (peer.backlog.empty() && TrySend(peer, send)) return;
  peer.backlog.push_back({&send, EntryType::kMessage, {}, 0, {}});
  ++backlog_;
}

bool ShmTransport::TrySend(Peer& peer, SendRequest& send) {
  const bool eager = send.bytes <= eager_bytes_;
  const bool slotted = !eager || send.confirmed;
  if (slotted && free_slots_.empty()) return false;
  const bool inlined = eager && !slotted && send.bytes <= kInlineEntryBytes;
  std::byte* payload = nullptr;
  // The announcement of what is read in place says how it lies.
  std::vector<uint64_t> words;
  if (!eager && send.layout != nullptr && send.in_place) words = send.layout->Words();
  const size_t words_bytes = words.size() * sizeof(uint64_t);
  Entry* entry = peer.out.Reserve(eager && !inlined ? send.bytes : words_bytes, &payload);
  if (entry == nullptr) return false;
  entry->type = eager ? EntryType::kMessage : EntryType::kAnnouncement;
  entry->key = send.key;
  entry->signature = send.signature;
  entry->bytes = send.bytes;
  if (inlined) {
    entry->slot = 0;  // of a message without content, which is read where the content of others is
    send.Fetch(0, send.bytes, entry->inlined);
  } else {
    if (eager) send.Fetch(0, send.bytes, payload);
    if (words_bytes > 0) std::memcpy(payload, words.data(), words_bytes);
    send.slot = slotted ? TakeSlot() : 0;
    entry->slot = send.slot;
    entry->generation = slotted ? generations_[send.slot] : 0;
    // What is packed as it goes is nowhere to be read: the receiver asks for it.
    const bool packs = send.layout != nullptr && words.empty();
    entry->address = packs ? 0 : reinterpret_cast<uintptr_t>(send.data);
  }
  peer.out.Commit(entry);
  (*peer.segment)->doorbell.Ring();
  if (slotted) {
    send.pushed = 0;
    answered_later_.push_back(&send);
  } else {
    send.owner->OnRequestDone(send.token, absl::OkStatus());
  }
  return true;
}

bool ShmTransport::TryControl(Peer& peer, const Outgoing& control) {
  std::byte* payload = nullptr;
  Entry* entry = peer.out.Reserve(control.text.size(), &payload);
  if (entry == nullptr) return false;
  entry->type = control.type;
  entry->code = control.code;
  entry->key = control.header.key;
  entry->signature = control.header.signature;
  entry->bytes = control.header.bytes;
  entry->address = control.header.address;
  entry->slot = control.header.slot;
  entry->generation = control.header.generation;
  if (!control.text.empty()) std::memcpy(payload, control.text.data(), control.text.size());
  peer.out.Commit(entry);
  (*peer.segment)->doorbell.Ring();
  return true;
}

void ShmTransport::Control(Peer& peer, Outgoing control) {
  if (peer.gone || (peer.backlog.empty() && TryControl(peer, control))) return;
  peer.backlog.push_back(std::move(control));
  ++backlog_;
}

void ShmTransport::SendAbort(int peer, const MessageKey& key, const absl::Status& why) {
  Outgoing control;
  control.type = EntryType::kAbort;
  control.header.key = key;
  control.code = static_cast<uint8_t>(why.code());
  control.text = std::string(why.message().substr(0, 1024));
  Control(At(peer), std::move(control));
}

bool ShmTransport::Flush(Peer& peer) {
  bool moved = false;
  while (!peer.backlog.empty()) {
    // Off the list first: completing a send may post the next.
    Outgoing first = std::move(peer.backlog.front());
    peer.backlog.pop_front();
    const bool sent = first.send != nullptr ? TrySend(peer, *first.send) : TryControl(peer, first);
    if (!sent) {
      peer.backlog.push_front(std::move(first));
      return moved;
    }
    --backlog_;
    moved = true;
  }
  return moved;
}

bool ShmTransport::Drain(Peer& peer, size_t* budget) {
  bool moved = false;
  const std::byte* payload = nullptr;
  while (const Entry* entry = peer.in.Peek(&payload)) {
    Handle(peer, *entry, payload);
    peer.in.Release();
    moved = true;
    *budget -= std::min<size_t>(*budget, entry->payload_bytes);
    // Behind a short message there is mostly none yet, and a look would take the line back that its producer has just
    // fetched to write the next.
    if (*budget == 0 || entry->payload_bytes == 0) break;
  }
  if (moved) peer.in.Publish();
  peer.spoke |= moved;
  return moved;
}

void ShmTransport::Handle(Peer& peer, const Entry& entry, const std::byte* payload) {
  MessageHeader header{entry.key, entry.signature, entry.bytes, 0, 0, 0};
  switch (entry.type) {
    case EntryType::kMessage: {
      const bool inlined = entry.payload_bytes == 0 && entry.bytes > 0;
      if (!inlined) {
        header.slot = entry.slot;
        header.generation = entry.generation;
      }
      events_->OnMessage(*this, peer.rank, header, inlined ? entry.inlined : payload);
      return;
    }
    case EntryType::kAnnouncement:
      header.slot = entry.slot;
      header.generation = entry.generation;
      header.address = entry.address;
      if (entry.payload_bytes > 0) {
        std::vector<uint64_t> words(entry.payload_bytes / sizeof(uint64_t));
        std::memcpy(words.data(), payload, words.size() * sizeof(uint64_t));
        absl::StatusOr<Datatype> layout = Datatype::FromWords(words);
        if (!layout.ok() || layout->bytes() != header.bytes) {
          Reply(peer.rank, header, Answer::kRefused);
          return;
        }
        header.layout = std::make_shared<const Datatype>(*std::move(layout));
      }
      events_->OnAnnouncement(*this, peer.rank, header);
      return;
    case EntryType::kPush:
      OnPushAsked(entry);
      return;
    case EntryType::kFragment:
      OnFragment(entry, payload);
      return;
    case EntryType::kAbort:
      events_->OnAbort(
          peer.rank, entry.key,
          absl::Status(static_cast<absl::StatusCode>(entry.code),
                       absl::string_view(reinterpret_cast<const char*>(payload), entry.payload_bytes)));
      return;
  }
}

bool ShmTransport::Progress(size_t budget) {
  bool moved = false;
  for (Peer* peer : live_) {
    if (!peer->backlog.empty() && !peer->gone) moved |= Flush(*peer);
    moved |= Drain(*peer, &budget);
    if (budget == 0) return true;
  }
  if (!answered_later_.empty()) moved |= LookAtSlots();
  for (size_t i = 0; i < pushing_.size() && budget > 0; ++i) {
    SendRequest* send = pushing_[i];
    moved |= PushSome(*send, &budget);
    if (i < pushing_.size() && pushing_[i] != send) --i;  // it was the last of its fragments
  }
  while (!pulls_.empty() && budget > 0) {
    moved = true;
    Pull pull = std::move(pulls_.front());
    pulls_.pop_front();
    if (!Advance(pull, &budget)) pulls_.push_back(pull);
  }
  return moved;
}

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
    peer.gone = true;
    peer.left = left;
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

BodyPath ShmTransport::PathOf(int peer, size_t bytes) const {
  return bytes > eager_bytes_ && peers_[peer]->readable ? BodyPath::kRead : BodyPath::kCopied;
}

int64_t ShmTransport::MaxSleepNanos() const {
  return backlog_ > 0 || !pushing_.empty() ? policy::kBacklogSleepNanos : policy::kMaxSleepNanos;
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

void ShmTransport::Close() {
  const int64_t give_up = NowNanos() + policy::kMaxSleepNanos * 10;
  while (backlog_ > 0 && NowNanos() < give_up) {
    if (!Progress(policy::kProgressBytes)) usleep(100);
  }
  (*own_)->closed.store(1, std::memory_order_seq_cst);
  for (Peer* peer : live_) (*peer->segment)->doorbell.Ring();
}

}  // namespace cohort::comm::shm
