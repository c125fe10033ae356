// The flow of entries through the rings. Bodies of large messages: shm_bodies.cc; peers: shm_peers.cc.
#include "comm/transport/shm/shm_transport.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/string_view.h"
#include "comm/check.h"
#include "comm/policy.h"
#include "comm/ticks.h"
#include "comm/transport/shm/policy.h"

namespace cohort::comm::shm {

void ShmTransport::Send(SendRequest& send) {
  Peer& peer = At(send.peer);
  if (peer.gone) {
    send.owner->OnRequestDone(send.token, GoneStatus(peer));
    return;
  }
  ChooseWay(peer, send);
  if (peer.backlog.empty() && TrySend(peer, send)) return;
  peer.backlog.push_back({&send, EntryType::kMessage, {}, 0, {}});
  ++backlog_;
}

bool ShmTransport::TrySend(Peer& peer, SendRequest& send) {
  const bool eager = !send.announced;
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
    if (eager) CopyIn(peer, send, payload);
    if (words_bytes > 0) std::memcpy(payload, words.data(), words_bytes);
    send.slot = slotted ? TakeSlot() : 0;
    entry->slot = send.slot;
    entry->generation = slotted ? generations_[send.slot] : 0;
    // What is packed as it goes is nowhere to be read: the receiver asks for it.
    const bool packs = send.layout != nullptr && words.empty();
    entry->address = packs ? 0 : reinterpret_cast<uintptr_t>(send.data);
    entry->lent_pages = static_cast<uint16_t>(send.lends ? Lend(peer, send) : 0);
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

void ShmTransport::ChooseWay(Peer& peer, SendRequest& send) const {
  const bool small = send.bytes <= policy::kShmEagerBytes;
  send.announced = !small;
  send.lends = false;
  if (!HasWay(send)) return;
  // One that cannot read here would have it copied piece by piece.
  const bool reads = !small || (peer.readable && !peer.asks && !free_slots_.empty());
  if (peer.lender.open() && !CanLend(peer)) peer.lender.Close();  // for good
  OpenWays open;
  open.Add(Way::kCopied, small).Add(Way::kRead, reads).Add(Way::kLent, reads && CanLend(peer));
  const Way way = peer.way.Next(send.bytes, open, peer.out_ring->taken);
  send.announced = way != Way::kCopied;
  send.lends = way == Way::kLent;
}

// Not what is packed as it goes, which is copied in any case, nor what members tell each other of their group: its sender
// does not wait until it is read.
bool ShmTransport::HasWay(const SendRequest& send) {
  return HasWays(send.bytes) && send.layout == nullptr && (send.key.context & kMembershipContext) == 0;
}

void ShmTransport::CopyIn(Peer& peer, const SendRequest& send, std::byte* payload) {
  const int64_t begin = HasWay(send) ? NowTicks() : 0;
  send.Fetch(0, send.bytes, payload);
  if (begin != 0) peer.way.NoteSent(send.bytes, Way::kCopied, NowTicks() - begin);
}

void ShmTransport::Deliver(RecvRequest& recv, const MessageHeader& header, const std::byte* body) {
  // One that was kept for a late receive lies elsewhere, and its peer may be forgotten.
  const bool fresh = body == arriving_;
  const int64_t begin = fresh && HasWays(header.bytes) ? NowTicks() : 0;
  recv.Deliver(body, 0, header.bytes);
  if (begin == 0) return;
  Peer& peer = At(recv.peer);
  peer.taken.Note(header.bytes, Way::kCopied, NowTicks() - begin, peer.in_ring->taken);
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
  MessageHeader header{entry.key, entry.signature, entry.bytes};
  switch (entry.type) {
    case EntryType::kMessage: {
      const bool inlined = entry.payload_bytes == 0 && entry.bytes > 0;
      if (!inlined) {
        header.slot = entry.slot;
        header.generation = entry.generation;
      }
      arriving_ = payload;
      events_->OnMessage(*this, peer.rank, header, inlined ? entry.inlined : payload);
      arriving_ = nullptr;
      return;
    }
    case EntryType::kAnnouncement:
      header.slot = entry.slot;
      header.generation = entry.generation;
      header.address = entry.address;
      NoteLent(peer, entry, &header);
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
  while (!pulling_.empty() && budget > 0) {
    moved = true;
    Peer& peer = *pulling_.front();
    pulling_.pop_front();
    // Of a peer one after the other: what was lent is taken in order.
    Pull pull = std::move(peer.pulls.front());
    peer.pulls.pop_front();
    if (!Advance(pull, &budget)) peer.pulls.push_front(std::move(pull));
    if (!peer.pulls.empty()) StartPulling(peer);
  }
  return moved;
}

BodyPath ShmTransport::PathOf(int peer, size_t bytes) const {
  return bytes > policy::kShmEagerBytes && peers_[peer]->readable ? BodyPath::kRead : BodyPath::kCopied;
}

int64_t ShmTransport::MaxSleepNanos() const {
  return backlog_ > 0 || !pushing_.empty() ? policy::kBacklogSleepNanos : policy::kMaxSleepNanos;
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
