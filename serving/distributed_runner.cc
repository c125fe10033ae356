#include "serving/distributed_runner.h"

#include <algorithm>
#include <cstring>
#include <list>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "serving/policy.h"
#include "serving/step_codec.h"

namespace cohort::serving {
namespace {

using comm::Communicator;

enum class Order : uint64_t { kRun = 1, kIdle = 2, kStop = 3, kAnswer = 4 };

// Tags keep frames apart from what a decoder might send.
constexpr int kFrameTag = 7001, kRestTag = 7002;

// One message between rank 0 and another. Most fit into one frame of fixed size, so that a step costs one
// message each way; what does not fit follows in a second message.
struct Frame {
  struct Header {
    uint64_t order = 0;
    uint64_t length = 0;  // of the whole payload
  };
  static constexpr size_t kRoom = policy::kFrameBytes - sizeof(Header);

  Header header;
  char payload[kRoom] = {};
};
static_assert(sizeof(Frame) == policy::kFrameBytes);

// On its way until Wait; not to be moved meanwhile.
class Sending {
 public:
  Sending(Communicator& communicator, int peer, Order order, std::string bytes = {})
      : bytes_(std::move(bytes)) {
    frame_.header = {static_cast<uint64_t>(order), bytes_.size()};
    const size_t first = std::min(bytes_.size(), Frame::kRoom);
    std::memcpy(frame_.payload, bytes_.data(), first);
    work_.push_back(communicator.Send(&frame_, sizeof(frame_), DataType::kU8, peer, kFrameTag));
    if (bytes_.size() == first) return;
    work_.push_back(
        communicator.Send(bytes_.data() + first, bytes_.size() - first, DataType::kU8, peer, kRestTag));
  }
  Sending(const Sending&) = delete;

  absl::Status Wait() {
    absl::Status status;
    for (const comm::Work& work : work_) status.Update(work.Wait());
    return status;
  }

 private:
  Frame frame_;
  const std::string bytes_;
  std::vector<comm::Work> work_;
};

struct Received {
  Order order;
  std::string bytes;
};

absl::StatusOr<Received> Receive(Communicator& communicator, int peer) {
  Frame frame;
  COHORT_RETURN_IF_ERROR(communicator.Recv(&frame, sizeof(frame), DataType::kU8, peer, kFrameTag).Wait());
  const uint64_t length = frame.header.length;
  if (length > policy::kMaxStepBytes)
    return absl::InternalError(absl::StrCat("rank ", peer, " sends ", length, " bytes"));
  Received received{static_cast<Order>(frame.header.order), std::string(length, '\0')};
  const size_t first = std::min<size_t>(length, Frame::kRoom);
  std::memcpy(received.bytes.data(), frame.payload, first);
  if (length > first) {
    COHORT_RETURN_IF_ERROR(
        communicator.Recv(received.bytes.data() + first, length - first, DataType::kU8, peer, kRestTag)
            .Wait());
  }
  return received;
}

}  // namespace

DistributedRunner::DistributedRunner(Communicator& communicator, RunnerInfo local, RankFunction run_rank)
    : communicator_(communicator), info_(local), run_rank_(std::move(run_rank)) {
  COHORT_CHECK(communicator.rank() == 0, "rank %d cannot lead", communicator.rank());
  info_.ranks = communicator.size();
}

// Everything is on its way before anything is waited for, so that all ranks begin at once.
absl::Status DistributedRunner::Announce(const Step* step) {
  std::list<Sending> messages;
  for (int rank = 1; rank < info_.ranks; ++rank) {
    if (step == nullptr) {
      messages.emplace_back(communicator_, rank, stopping_ ? Order::kStop : Order::kIdle);
    } else {
      messages.emplace_back(communicator_, rank, Order::kRun, EncodeStep(step->ranks[rank]));
    }
  }
  absl::Status status;
  for (Sending& message : messages) status.Update(message.Wait());
  return status;
}

absl::StatusOr<StepResult> DistributedRunner::Run(const Step& step) {
  over_ = true;  // until it has succeeded
  COHORT_RETURN_IF_ERROR(Announce(&step));
  absl::StatusOr<RankResult> own = run_rank_(step.ranks[0]);
  if (!own.ok()) return own.status();
  StepResult result;
  result.ranks.push_back(*std::move(own));
  for (int rank = 1; rank < info_.ranks; ++rank) {
    COHORT_ASSIGN_OR_RETURN(const Received received, Receive(communicator_, rank));
    COHORT_ASSIGN_OR_RETURN(RankResult part, DecodeAnswer(rank, received.bytes));
    if (part.rows.size() != step.ranks[rank].rows.size()) {
      return absl::InternalError(absl::StrCat("rank ", rank, " answers ", part.rows.size(), " rows of ",
                                              step.ranks[rank].rows.size()));
    }
    result.ranks.push_back(std::move(part));
  }
  over_ = false;
  return result;
}

absl::Status DistributedRunner::Idle() {
  const absl::Status status = Announce(nullptr);
  over_ = !status.ok();
  return status;
}

void DistributedRunner::Stop() {
  if (std::exchange(over_, true)) return;
  stopping_ = true;
  // A rank that cannot hear it any more finds out for itself.
  Announce(nullptr).IgnoreError();
}

absl::Status RunFollower(Communicator& communicator, const RankFunction& run_rank) {
  while (true) {
    COHORT_ASSIGN_OR_RETURN(const Received received, Receive(communicator, 0));
    if (received.order == Order::kIdle) continue;
    if (received.order == Order::kStop) return absl::OkStatus();
    COHORT_ASSIGN_OR_RETURN(const RankStep step, DecodeStep(received.bytes));
    const absl::StatusOr<RankResult> result = run_rank(step);
    const absl::Status sent = Sending(communicator, 0, Order::kAnswer, EncodeAnswer(result)).Wait();
    if (!result.ok()) return result.status();
    COHORT_RETURN_IF_ERROR(sent);
  }
}

}  // namespace cohort::serving
