// Bodies of large messages: slots where senders wait, pulls, and fragments where pulling is not permitted.
#include <algorithm>
#include <bit>

#include "absl/strings/str_format.h"
#include "comm/policy.h"
#include "comm/ticks.h"
#include "comm/transport/shm/policy.h"
#include "comm/transport/shm/shm_transport.h"

namespace cohort::comm::shm {
namespace {

// Runs in one call: as many as the system takes (UIO_MAXIOV).
constexpr size_t kReadRuns = 1024;

static_assert(policy::kShmLentBytes / 4096 < UINT16_MAX, "an entry has 16 bits for pages");

// The pipe of a pair among so many ranks of a host, in bytes; 0: none.
size_t PipeBytes(size_t ranks) {
  const size_t share = policy::kShmLentBytesOfHost / (ranks * (ranks - 1));
  const size_t bytes = std::min(std::bit_floor(share), policy::kShmLentBytes);
  return bytes < policy::kShmLeastLentBytes ? 0 : bytes;
}

}  // namespace

bool ShmTransport::CanLend(const Peer& peer) const {
  return may_read_ && peer.lends && !peer.asks &&
         peer.out_ring->cannot_borrow.load(std::memory_order_relaxed) == 0;
}

uint32_t ShmTransport::Lend(Peer& peer, const SendRequest& send) {
  if (!CanLend(peer)) return 0;  // it may have waited since it was chosen
  if (!peer.lender.open()) {
    const size_t bytes = PipeBytes(live_.size() + 1);
    peer.lends = bytes > 0 && peer.lender.Open(bytes);
    if (!peer.lends) return 0;
    peer.out_ring->lender_inode.store(peer.lender.inode(), std::memory_order_relaxed);
    peer.out_ring->lender.store(static_cast<uint32_t>(peer.lender.receiver_fd()) + 1,
                                std::memory_order_release);
  }
  const int64_t begin = NowTicks();
  const std::optional<uint32_t> pages = peer.lender.Lend(send.data, send.bytes);
  peer.lends = pages.has_value();
  if (pages.value_or(0) > 0) peer.way.NoteSent(send.bytes, Way::kLent, NowTicks() - begin);
  return pages.value_or(0);
}

void ShmTransport::NoteLent(Peer& peer, const Entry& entry, MessageHeader* header) {
  const size_t bytes = LentBytes(entry.address, entry.bytes, entry.lent_pages);
  header->lent_at = peer.borrower.Note(bytes);
  if (bytes == 0 || peer.in_ring->cannot_borrow.load(std::memory_order_relaxed) != 0) return;
  if (!peer.borrower.open()) {
    const auto fd = static_cast<int>(peer.in_ring->lender.load(std::memory_order_acquire)) - 1;
    const uint64_t inode = peer.in_ring->lender_inode.load(std::memory_order_relaxed);
    if (!peer.borrower.Open(peer.process.pid(), fd, inode)) {
      peer.in_ring->cannot_borrow.store(1, std::memory_order_relaxed);  // for good
      return;
    }
  }
  header->lent = bytes;
}

uint32_t ShmTransport::TakeSlot() {
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  const uint32_t generation = ++generations_[slot];
  (*own_)->slots[slot].word.store(SlotWord(generation, SlotState::kPosted), std::memory_order_release);
  return slot;
}

void ShmTransport::FreeSlot(uint32_t slot) {
  (*own_)->slots[slot].word.store(SlotWord(generations_[slot], SlotState::kFree), std::memory_order_release);
  free_slots_.push_back(slot);
}

SlotState ShmTransport::StateOf(const SendRequest& send) const {
  return static_cast<SlotState>((*own_)->slots[send.slot].word.load(std::memory_order_seq_cst) & 0xff);
}

bool ShmTransport::LookAtSlots() {
  bool moved = false;
  std::vector<int> refusing;
  for (size_t i = 0; i < answered_later_.size();) {
    SendRequest* send = answered_later_[i];
    const SlotState state = StateOf(*send);
    if (state == SlotState::kRefused) refusing.push_back(send->peer);
    if (state != SlotState::kTaken) {
      ++i;
      continue;
    }
    moved = true;
    EndAnswered(i, absl::OkStatus());
  }
  // Who refuses because the operation has failed there has said why before, in its ring.
  for (const int peer : refusing) {
    size_t budget = SIZE_MAX;
    while (Drain(At(peer), &budget)) {
    }
    for (size_t i = 0; i < answered_later_.size();) {
      const SendRequest& send = *answered_later_[i];
      if (send.peer != peer || StateOf(send) != SlotState::kRefused) {
        ++i;
        continue;
      }
      moved = true;
      EndAnswered(i, absl::InvalidArgumentError(absl::StrFormat(
                         "rank %d refused %s from this rank: it called something else, or gave up", peer,
                         Describe(send.signature))));
    }
  }
  return moved;
}

void ShmTransport::EndAnswered(size_t place, const absl::Status& status) {
  SendRequest* send = answered_later_[place];
  answered_later_[place] = answered_later_.back();
  answered_later_.pop_back();
  std::erase(pushing_, send);
  FreeSlot(send->slot);
  send->owner->OnRequestDone(send->token, status);
}

void ShmTransport::CancelSend(SendRequest& send) {
  Peer& peer = At(send.peer);
  const auto waiting = std::find_if(peer.backlog.begin(), peer.backlog.end(),
                                    [&](const Outgoing& outgoing) { return outgoing.send == &send; });
  if (waiting != peer.backlog.end()) {
    peer.backlog.erase(waiting);
    --backlog_;
    return;
  }
  if (std::erase(answered_later_, &send) == 0) return;
  std::erase(pushing_, &send);
  // A receiver that is reading now finds the slot changed when it is through, and drops what it read.
  FreeSlot(send.slot);
}

void ShmTransport::Reply(int peer, const MessageHeader& header, Answer answer) {
  Peer& to = At(peer);
  const SlotState state = answer == Answer::kTaken ? SlotState::kTaken : SlotState::kRefused;
  uint64_t expected = SlotWord(header.generation, SlotState::kPosted);
  if ((*to.segment)
          ->slots[header.slot]
          .word.compare_exchange_strong(expected, SlotWord(header.generation, state),
                                        std::memory_order_seq_cst)) {
    (*to.segment)->doorbell.Ring();
  }
}

void ShmTransport::Accept(RecvRequest& recv, const MessageHeader& header) {
  Peer& peer = At(recv.peer);
  if (peer.gone) {  // it had announced this before
    recv.owner->OnRequestDone(recv.token, GoneStatus(peer));
    return;
  }
  recv.moving = true;
  if (!peer.readable || header.address == 0) {
    recv.transfer = next_transfer_++;
    transfers_[recv.transfer] = &recv;
    Outgoing control;
    control.type = EntryType::kPush;
    control.header.slot = header.slot;
    control.header.generation = header.generation;
    control.header.address = recv.transfer;
    Control(peer, std::move(control));
    return;
  }
  recv.transfer = 0;
  Pull pull{&recv, header, 0};
  if (header.layout != nullptr) pull.remote.emplace(*header.layout);
  if (recv.layout != nullptr && recv.in_place) pull.local.emplace(*recv.layout);
  uint64_t expected = SlotWord(header.generation, SlotState::kPosted);
  if (!(*peer.segment)
           ->slots[header.slot]
           .word.compare_exchange_strong(expected, SlotWord(header.generation, SlotState::kClaimed),
                                         std::memory_order_seq_cst)) {
    // The sender has given the operation up: its abort is on the way, and says why.
    PassOver(peer, header);
    recv.moving = false;
    return;
  }
  // Small bodies in the call that found them, others as Progress gets to it.
  size_t budget = policy::kInlineBytes;
  if (header.bytes <= budget && Advance(pull, &budget)) return;
  const auto behind = std::find_if(peer.pulls.begin(), peer.pulls.end(),
                                   [&](const Pull& other) { return other.header.lent_at > header.lent_at; });
  peer.pulls.insert(behind, std::move(pull));
  StartPulling(peer);
}

void ShmTransport::StartPulling(Peer& peer) {
  if (std::find(pulling_.begin(), pulling_.end(), &peer) == pulling_.end()) pulling_.push_back(&peer);
}

size_t ShmTransport::Borrow(Peer& peer, Pull& pull, size_t most, std::byte* to) {
  // Another that is under way would lose what it has not taken yet.
  if (!peer.pulls.empty() && peer.pulls.front().header.lent_at < pull.header.lent_at) return 0;
  size_t got = 0;
  while (got < most && pull.offset + got < pull.header.lent) {
    const size_t left = std::min<uint64_t>(most, pull.header.lent - pull.offset) - got;
    const size_t part = peer.borrower.Read(pull.header.lent_at + pull.offset + got, to + got, left);
    if (part == 0) break;  // its turn is over
    got += part;
  }
  pull.borrowed += got;
  borrowed_bytes_ += got;
  return got;
}

void ShmTransport::PassOver(Peer& peer, const MessageHeader& header) {
  uint64_t at = header.lent_at + header.lent;
  if (!peer.pulls.empty()) at = std::min(at, peer.pulls.front().header.lent_at);
  peer.borrower.SkipTo(at);
}

absl::Status ShmTransport::ReadSome(Pull& pull, size_t most, std::byte* dense, size_t* got) {
  Peer& peer = At(pull.recv->peer);
  const Process& process = peer.process;
  if (!pull.remote && !pull.local) {
    *got = most;
    const size_t borrowed = Borrow(peer, pull, most, dense);
    return process.Read(pull.header.address + pull.offset + borrowed, dense + borrowed, most - borrowed);
  }
  // The lists of both sides, as long as the system takes them; the shorter one counts.
  const auto list = [](std::optional<RunCursor>& cursor, std::byte* base, size_t limit,
                       std::vector<iovec>* runs) {
    runs->clear();
    if (!cursor) {
      runs->push_back({base, limit});
      return limit;
    }
    size_t bytes = 0;
    while (bytes < limit && runs->size() < kReadRuns) {
      const RunCursor::Piece piece = cursor->Next(limit - bytes);
      runs->push_back({base + piece.offset, piece.bytes});
      bytes += piece.bytes;
    }
    return bytes;
  };
  auto* remote = reinterpret_cast<std::byte*>(pull.header.address);
  const std::optional<RunCursor> before = pull.remote;
  *got = list(pull.remote, remote + (pull.remote ? 0 : pull.offset), most, &from_);
  const size_t into = list(pull.local, pull.local ? pull.recv->destination : dense, *got, &to_);
  if (into < *got) {
    *got = into;
    pull.remote = before;
    list(pull.remote, remote + (pull.remote ? 0 : pull.offset), into, &from_);
  }
  return process.Read(absl::MakeSpan(from_), absl::MakeSpan(to_));
}

bool ShmTransport::Advance(Pull& pull, size_t* budget) {
  RecvRequest& recv = *pull.recv;
  const int64_t begin = HasWays(recv.bytes) ? NowTicks() : 0;
  const size_t chunk_bytes = !recv.direct() ? policy::kPullReduceBytes : policy::kPullBytes;
  while (*budget > 0 && pull.offset < recv.bytes) {
    size_t bytes = std::min(chunk_bytes, recv.bytes - pull.offset);
    const bool staged = !recv.direct() && !pull.local;
    std::byte* to = staged ? nullptr : recv.destination + pull.offset;
    if (staged) {
      if (staging_.size() < chunk_bytes) staging_.resize(chunk_bytes);
      to = staging_.data();
    }
    const absl::Status status = ReadSome(pull, bytes, to, &bytes);
    if (!status.ok()) {
      FinishPull(pull, status);
      return true;
    }
    if (staged) recv.Deliver(to, pull.offset, bytes);
    pull.offset += bytes;
    *budget -= std::min(*budget, bytes);
  }
  if (begin != 0) pull.ticks += NowTicks() - begin;
  if (pull.offset < recv.bytes) return false;
  FinishPull(pull, absl::OkStatus());
  return true;
}

void ShmTransport::FinishPull(const Pull& pull, const absl::Status& status) {
  RecvRequest& recv = *pull.recv;
  Peer& peer = At(recv.peer);
  recv.moving = false;
  PassOver(peer, pull.header);
  uint64_t expected = SlotWord(pull.header.generation, SlotState::kClaimed);
  const SlotState state = status.ok() ? SlotState::kTaken : SlotState::kRefused;
  const bool valid = (*peer.segment)
                         ->slots[pull.header.slot]
                         .word.compare_exchange_strong(expected, SlotWord(pull.header.generation, state),
                                                       std::memory_order_seq_cst);
  (*peer.segment)->doorbell.Ring();
  // Given up by the sender while this rank was reading: its abort is on the way. And a process that is gone
  // is CheckPeers' to report, after what it last said: that may name another rank.
  if (!valid || status.code() == absl::StatusCode::kUnavailable) return;
  // One that has lost its turn says nothing of either way.
  if (status.ok() && pull.ticks != 0 && pull.borrowed == pull.header.lent) {
    const Way way = pull.borrowed > 0 ? Way::kLent : Way::kRead;
    peer.taken.Note(recv.bytes, way, pull.ticks, peer.in_ring->taken);
  }
  recv.owner->OnRequestDone(
      recv.token, status.ok() ? absl::OkStatus()
                              : absl::UnavailableError(absl::StrFormat("cannot read from rank %d: %s",
                                                                       recv.peer, status.message())));
}

void ShmTransport::CancelRecv(RecvRequest& recv) {
  if (!recv.moving) return;
  recv.moving = false;
  if (recv.transfer != 0) {
    transfers_.erase(recv.transfer);
    return;
  }
  Peer& peer = At(recv.peer);
  const auto at = std::find_if(peer.pulls.begin(), peer.pulls.end(),
                               [&](const Pull& pull) { return pull.recv == &recv; });
  if (at == peer.pulls.end()) return;
  uint64_t expected = SlotWord(at->header.generation, SlotState::kClaimed);
  (*peer.segment)
      ->slots[at->header.slot]
      .word.compare_exchange_strong(expected, SlotWord(at->header.generation, SlotState::kWithdrawn),
                                    std::memory_order_seq_cst);
  peer.pulls.erase(at);
  if (peer.pulls.empty()) std::erase(pulling_, &peer);
}

void ShmTransport::OnPushAsked(const Entry& entry) {
  for (SendRequest* send : answered_later_) {
    if (send->slot != entry.slot || generations_[send->slot] != entry.generation) continue;
    send->push_target = entry.address;
    At(send->peer).asks = true;
    pushing_.push_back(send);
    return;
  }
}

bool ShmTransport::PushSome(SendRequest& send, size_t* budget) {
  Peer& peer = At(send.peer);
  bool moved = false;
  while (*budget > 0 && peer.backlog.empty() && !peer.gone) {
    const size_t bytes = std::min(policy::kShmFragmentBytes, send.bytes - send.pushed);
    std::byte* payload = nullptr;
    Entry* entry = peer.out.Reserve(bytes, &payload);
    if (entry == nullptr) return moved;
    send.Fetch(send.pushed, bytes, payload);
    entry->type = EntryType::kFragment;
    entry->bytes = send.pushed;
    entry->address = send.push_target;
    peer.out.Commit(entry);
    (*peer.segment)->doorbell.Ring();
    moved = true;
    send.pushed += bytes;
    *budget -= std::min(*budget, bytes);
    if (send.pushed < send.bytes) continue;
    std::erase(pushing_, &send);
    std::erase(answered_later_, &send);
    FreeSlot(send.slot);
    send.owner->OnRequestDone(send.token, absl::OkStatus());
    return true;
  }
  return moved;
}

void ShmTransport::OnFragment(const Entry& entry, const std::byte* payload) {
  const auto at = transfers_.find(entry.address);
  if (at == transfers_.end()) return;
  RecvRequest& recv = *at->second;
  recv.Deliver(payload, entry.bytes, entry.payload_bytes);
  // Fragments come in order: the last one ends the message.
  if (entry.bytes + entry.payload_bytes < recv.bytes) return;
  transfers_.erase(at);
  recv.moving = false;
  recv.owner->OnRequestDone(recv.token, absl::OkStatus());
}

}  // namespace cohort::comm::shm
