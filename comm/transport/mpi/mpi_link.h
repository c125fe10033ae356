// The work of the MPI transport.
#pragma once

#ifdef COHORT_HAVE_MPI

#include <deque>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "comm/transport/mpi/mpi_runtime.h"
#include "comm/transport/mpi/policy.h"
#include "comm/transport/transport.h"

namespace cohort::comm::mpi {

enum class FrameType : uint8_t {
  kMessage,       // with its body
  kAnnouncement,  // the body waits at the sender, in `slot`
  kClear,         // send the body of `slot` under tag `address`
  kTaken,         // answers to `slot`
  kRefused,
  kAbort,  // the body says why
};

// What travels under the control tag.
struct Frame {
  FrameType type = FrameType::kMessage;
  uint8_t code = 0;
  uint16_t body_bytes = 0;
  MessageKey key;
  Signature signature;
  uint64_t bytes = 0;
  uint64_t address = 0;
  uint32_t slot = 0;
  uint32_t unused = 0;
  std::byte body[policy::kMpiEagerBytes];

  size_t wire_bytes() const { return offsetof(Frame, body) + body_bytes; }
};

// Small messages are frames that MPI copies. A large body waits until its receive is there: the receiver
// posts MPI receives under a tag of its choice and clears the sender to send. MPI says nothing of lost peers:
// deadlines do. A buffer in MPI's hands cannot be taken back, so an operation that failed is only over when
// Cancel could cancel its receives; a body that goes out late is refused by the tag nobody waits for.
class Link : public Transport {
 public:
  Link(Runtime& runtime, std::vector<int> mpi_ranks, TransportEvents* events);
  ~Link() override;

  absl::string_view name() const override { return "mpi"; }
  BodyPath PathOf(int peer, size_t bytes) const override { return BodyPath::kDense; }
  void Send(SendRequest& send) override;
  void CancelSend(SendRequest& send) override;
  void Accept(RecvRequest& recv, const MessageHeader& header) override;
  void CancelRecv(RecvRequest& recv) override;
  void Reply(int peer, const MessageHeader& header, Answer answer) override;
  void SendAbort(int peer, const MessageKey& key, const absl::Status& why) override;
  bool Progress(size_t budget) override;
  void CheckPeers() override {}
  int64_t MaxSleepNanos() const override { return policy::kPollingSleepNanos; }
  void Close() override;

 private:
  struct Outgoing {  // a frame in MPI's hands
    MPI_Request request;
    std::unique_ptr<Frame> frame;
  };
  struct Body {  // pieces of one body in MPI's hands, in either direction
    SendRequest* send = nullptr;
    RecvRequest* recv = nullptr;  // both null: given up by its owner
    std::vector<MPI_Request> pieces;
    size_t next = 0;  // pieces are looked at in order
    std::vector<std::byte> staging;
  };

  void SendFrame(int peer, std::unique_ptr<Frame> frame);
  void PostReceive(size_t index);
  void Handle(int peer, const Frame& frame);
  void SendBody(SendRequest& send, int tag);
  bool Advance(Body& body);
  bool ProgressFrames();

  Runtime& runtime_;
  const std::vector<int> mpi_ranks_;  // by rank
  std::vector<int> rank_of_;          // by MPI rank
  TransportEvents* events_;
  std::vector<std::unique_ptr<Frame>> inbox_;
  std::vector<MPI_Request> receives_;  // of inbox_
  std::list<Outgoing> outgoing_;
  std::list<Body> bodies_;
  std::unordered_map<uint32_t, SendRequest*> waiting_;  // by slot
  uint32_t next_slot_ = 1;
  int next_tag_ = 0;
};

}  // namespace cohort::comm::mpi

#endif  // COHORT_HAVE_MPI
