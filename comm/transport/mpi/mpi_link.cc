#ifdef COHORT_HAVE_MPI

#include "comm/transport/mpi/mpi_link.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"
#include "comm/doorbell.h"
#include "comm/policy.h"
#include "comm/transport/mpi/policy.h"

namespace cohort::comm::mpi {
namespace {

constexpr int kControlTag = 1;
// Bodies use the tags from here on in turn: MPI guarantees tags up to 32767.
constexpr int kFirstBodyTag = 2;
constexpr int kNumBodyTags = 32000;

size_t NumPieces(size_t bytes) { return (bytes + policy::kMpiPieceBytes - 1) / policy::kMpiPieceBytes; }
int PieceBytes(size_t bytes, size_t piece) {
  return static_cast<int>(std::min(policy::kMpiPieceBytes, bytes - piece * policy::kMpiPieceBytes));
}

}  // namespace

Link::Link(Runtime& runtime, std::vector<int> mpi_ranks, TransportEvents* events)
    : runtime_(runtime), mpi_ranks_(std::move(mpi_ranks)), rank_of_(runtime.size, -1), events_(events) {
  for (size_t rank = 0; rank < mpi_ranks_.size(); ++rank) {
    if (mpi_ranks_[rank] >= 0) rank_of_[mpi_ranks_[rank]] = static_cast<int>(rank);
  }
  const std::lock_guard lock(runtime_.mutex);
  receives_.resize(policy::kMpiPostedReceives, MPI_REQUEST_NULL);
  for (size_t i = 0; i < receives_.size(); ++i) {
    inbox_.push_back(std::make_unique<Frame>());
    PostReceive(i);
  }
}

Link::~Link() = default;

void Link::PostReceive(size_t index) {
  MPI_Irecv(inbox_[index].get(), sizeof(Frame), MPI_BYTE, MPI_ANY_SOURCE, kControlTag, runtime_.data,
            &receives_[index]);
}

void Link::SendFrame(int peer, std::unique_ptr<Frame> frame) {
  Outgoing& outgoing = outgoing_.emplace_back();
  outgoing.frame = std::move(frame);
  const std::lock_guard lock(runtime_.mutex);
  MPI_Isend(outgoing.frame.get(), static_cast<int>(outgoing.frame->wire_bytes()), MPI_BYTE, mpi_ranks_[peer],
            kControlTag, runtime_.data, &outgoing.request);
}

void Link::Send(SendRequest& send) {
  const bool eager = send.bytes <= policy::kMpiEagerBytes;
  auto frame = std::make_unique<Frame>();
  frame->type = eager ? FrameType::kMessage : FrameType::kAnnouncement;
  frame->key = send.key;
  frame->signature = send.signature;
  frame->bytes = send.bytes;
  const bool waits = !eager || send.confirmed;
  if (waits) {
    while (next_slot_ == 0 || waiting_.count(next_slot_) > 0) ++next_slot_;
    send.slot = next_slot_++;
    frame->slot = send.slot;
    waiting_[send.slot] = &send;
  }
  if (eager && send.bytes > 0) {
    frame->body_bytes = static_cast<uint16_t>(send.bytes);
    std::memcpy(frame->body, send.data, send.bytes);
  }
  SendFrame(send.peer, std::move(frame));
  if (!waits) send.owner->OnRequestDone(send.token, absl::OkStatus());
}

void Link::CancelSend(SendRequest& send) {
  std::erase_if(waiting_, [&](const auto& entry) { return entry.second == &send; });
  // What MPI has begun to send it will send: its receiver fails with the operation.
  for (Body& body : bodies_) {
    if (body.send == &send) body.send = nullptr;
  }
}

void Link::Accept(RecvRequest& recv, const MessageHeader& header) {
  recv.moving = true;
  Body& body = bodies_.emplace_back();
  body.recv = &recv;
  const int tag = kFirstBodyTag + next_tag_;
  next_tag_ = (next_tag_ + 1) % kNumBodyTags;
  std::byte* to = recv.destination;
  if (!recv.direct()) {
    body.staging.resize(recv.bytes);
    to = body.staging.data();
  }
  {
    const std::lock_guard lock(runtime_.mutex);
    for (size_t piece = 0; piece < NumPieces(recv.bytes); ++piece) {
      MPI_Irecv(to + piece * policy::kMpiPieceBytes, PieceBytes(recv.bytes, piece), MPI_BYTE,
                mpi_ranks_[recv.peer], tag, runtime_.data, &body.pieces.emplace_back());
    }
  }
  auto frame = std::make_unique<Frame>();
  frame->type = FrameType::kClear;
  frame->slot = header.slot;
  frame->address = static_cast<uint64_t>(tag);
  SendFrame(recv.peer, std::move(frame));
}

void Link::CancelRecv(RecvRequest& recv) {
  for (auto it = bodies_.begin(); it != bodies_.end(); ++it) {
    if (it->recv != &recv) continue;
    const std::lock_guard lock(runtime_.mutex);
    for (MPI_Request& piece : it->pieces) {
      if (piece == MPI_REQUEST_NULL) continue;
      MPI_Cancel(&piece);
      MPI_Wait(&piece, MPI_STATUS_IGNORE);  // returns: cancelled, or already matched and arriving
    }
    bodies_.erase(it);
    break;
  }
  recv.moving = false;
}

void Link::Reply(int peer, const MessageHeader& header, Answer answer) {
  auto frame = std::make_unique<Frame>();
  frame->type = answer == Answer::kTaken ? FrameType::kTaken : FrameType::kRefused;
  frame->slot = header.slot;
  SendFrame(peer, std::move(frame));
}

void Link::SendAbort(int peer, const MessageKey& key, const absl::Status& why) {
  auto frame = std::make_unique<Frame>();
  frame->type = FrameType::kAbort;
  frame->code = static_cast<uint8_t>(why.code());
  frame->key = key;
  frame->body_bytes = static_cast<uint16_t>(std::min<size_t>(why.message().size(), 1024));
  std::memcpy(frame->body, why.message().data(), frame->body_bytes);
  SendFrame(peer, std::move(frame));
}

void Link::SendBody(SendRequest& send, int tag) {
  Body& body = bodies_.emplace_back();
  body.send = &send;
  const std::lock_guard lock(runtime_.mutex);
  for (size_t piece = 0; piece < NumPieces(send.bytes); ++piece) {
    MPI_Isend(send.data + piece * policy::kMpiPieceBytes, PieceBytes(send.bytes, piece), MPI_BYTE,
              mpi_ranks_[send.peer], tag, runtime_.data, &body.pieces.emplace_back());
  }
}

void Link::Handle(int peer, const Frame& frame) {
  const MessageHeader header{frame.key, frame.signature, frame.bytes, frame.slot, 0, frame.address};
  switch (frame.type) {
    case FrameType::kMessage:
      events_->OnMessage(*this, peer, header, frame.body);
      return;
    case FrameType::kAnnouncement:
      events_->OnAnnouncement(*this, peer, header);
      return;
    case FrameType::kAbort:
      events_->OnAbort(
          peer, frame.key,
          absl::Status(static_cast<absl::StatusCode>(frame.code),
                       absl::string_view(reinterpret_cast<const char*>(frame.body), frame.body_bytes)));
      return;
    case FrameType::kClear:
    case FrameType::kTaken:
    case FrameType::kRefused:
      break;
  }
  const auto at = waiting_.find(frame.slot);
  if (at == waiting_.end()) return;  // given up in the meantime
  SendRequest& send = *at->second;
  waiting_.erase(at);
  if (frame.type == FrameType::kClear) {
    SendBody(send, static_cast<int>(frame.address));
  } else if (frame.type == FrameType::kTaken) {
    send.owner->OnRequestDone(send.token, absl::OkStatus());
  } else {
    send.owner->OnRequestDone(
        send.token, absl::InvalidArgumentError(absl::StrFormat(
                        "rank %d refused %s from this rank: it called something else, or gave up", send.peer,
                        Describe(send.signature))));
  }
}

// Whether all pieces are over; delivers those that came.
bool Link::Advance(Body& body) {
  while (body.next < body.pieces.size()) {
    int over = 0;
    {
      const std::lock_guard lock(runtime_.mutex);
      MPI_Test(&body.pieces[body.next], &over, MPI_STATUS_IGNORE);
    }
    if (!over) return false;
    if (body.recv != nullptr && !body.recv->direct()) {
      const size_t offset = body.next * policy::kMpiPieceBytes;
      body.recv->Deliver(body.staging.data() + offset, offset,
                         static_cast<size_t>(PieceBytes(body.recv->bytes, body.next)));
    }
    ++body.next;
  }
  return true;
}

bool Link::ProgressFrames() {
  bool moved = false;
  for (;;) {
    int index = MPI_UNDEFINED, over = 0;
    MPI_Status status;
    {
      const std::lock_guard lock(runtime_.mutex);
      MPI_Testany(static_cast<int>(receives_.size()), receives_.data(), &index, &over, &status);
    }
    if (!over || index == MPI_UNDEFINED) return moved;
    moved = true;
    Handle(rank_of_[status.MPI_SOURCE], *inbox_[index]);
    const std::lock_guard lock(runtime_.mutex);
    PostReceive(static_cast<size_t>(index));
  }
}

bool Link::Progress(size_t budget) {
  bool moved = ProgressFrames();
  for (auto it = outgoing_.begin(); it != outgoing_.end();) {
    int over = 0;
    const std::lock_guard lock(runtime_.mutex);
    MPI_Test(&it->request, &over, MPI_STATUS_IGNORE);
    it = over ? outgoing_.erase(it) : std::next(it);
  }
  // Ended bodies leave the list before their owners hear of it, who may give up others.
  std::vector<Body> ended;
  for (auto it = bodies_.begin(); it != bodies_.end();) {
    if (!Advance(*it)) {
      ++it;
      continue;
    }
    ended.push_back(std::move(*it));
    it = bodies_.erase(it);
  }
  for (const Body& body : ended) {
    moved = true;
    if (body.recv != nullptr) body.recv->moving = false;
  }
  for (const Body& body : ended) {
    if (body.send != nullptr) body.send->owner->OnRequestDone(body.send->token, absl::OkStatus());
    if (body.recv != nullptr) body.recv->owner->OnRequestDone(body.recv->token, absl::OkStatus());
  }
  return moved;
}

void Link::Close() {
  const int64_t give_up = NowNanos() + policy::kMpiFlushNanos;
  while ((!outgoing_.empty() || !bodies_.empty()) && NowNanos() < give_up) {
    if (!Progress(policy::kProgressBytes)) usleep(100);
  }
  const std::lock_guard lock(runtime_.mutex);
  for (MPI_Request& receive : receives_) {
    MPI_Cancel(&receive);
    MPI_Wait(&receive, MPI_STATUS_IGNORE);
  }
}

}  // namespace cohort::comm::mpi

#endif  // COHORT_HAVE_MPI
