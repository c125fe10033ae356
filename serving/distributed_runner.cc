#include "serving/distributed_runner.h"

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

enum class Order : uint64_t { kRun = 1, kIdle = 2, kStop = 3 };

// A length and as many bytes, between two ranks. Tags keep them apart from what a decoder might send.
constexpr int kLengthTag = 7001, kBytesTag = 7002;

absl::Status SendBytes(Communicator& communicator, int peer, const std::string& bytes) {
  const uint64_t length = bytes.size();
  const comm::Work first = communicator.Send(&length, sizeof(length), DataType::kU8, peer, kLengthTag);
  const comm::Work second = communicator.Send(bytes.data(), bytes.size(), DataType::kU8, peer, kBytesTag);
  const absl::Status status = first.Wait();
  const absl::Status other = second.Wait();
  return status.ok() ? other : status;
}

absl::StatusOr<std::string> ReceiveBytes(Communicator& communicator, int peer) {
  uint64_t length = 0;
  COHORT_RETURN_IF_ERROR(communicator.Recv(&length, sizeof(length), DataType::kU8, peer, kLengthTag).Wait());
  if (length > policy::kMaxStepBytes)
    return absl::InternalError(absl::StrCat("rank ", peer, " sends ", length, " bytes"));
  std::string bytes(length, '\0');
  COHORT_RETURN_IF_ERROR(
      communicator.Recv(bytes.data(), bytes.size(), DataType::kU8, peer, kBytesTag).Wait());
  return bytes;
}

// Everybody hears the order; only kRun is followed by more.
absl::Status Announce(Communicator& communicator, Order& order) {
  return communicator.Broadcast(&order, sizeof(order), DataType::kU8, 0).Wait();
}

}  // namespace

DistributedRunner::DistributedRunner(Communicator& communicator, RunnerInfo local, RankFunction run_rank)
    : communicator_(communicator), info_(local), run_rank_(std::move(run_rank)) {
  COHORT_CHECK(communicator.rank() == 0, "rank %d cannot lead", communicator.rank());
  info_.ranks = communicator.size();
}

absl::StatusOr<StepResult> DistributedRunner::Run(const Step& step) {
  over_ = true;  // until it has succeeded
  Order order = Order::kRun;
  COHORT_RETURN_IF_ERROR(Announce(communicator_, order));
  for (int rank = 1; rank < info_.ranks; ++rank) {
    COHORT_RETURN_IF_ERROR(SendBytes(communicator_, rank, EncodeStep(step.ranks[rank])));
  }
  absl::StatusOr<RankResult> own = run_rank_(step.ranks[0]);
  if (!own.ok()) return own.status();
  StepResult result;
  result.ranks.push_back(*std::move(own));
  for (int rank = 1; rank < info_.ranks; ++rank) {
    COHORT_ASSIGN_OR_RETURN(const std::string bytes, ReceiveBytes(communicator_, rank));
    COHORT_ASSIGN_OR_RETURN(RankResult part, DecodeAnswer(rank, bytes));
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
  Order order = Order::kIdle;
  const absl::Status status = Announce(communicator_, order);
  over_ = !status.ok();
  return status;
}

void DistributedRunner::Stop() {
  if (std::exchange(over_, true)) return;
  Order order = Order::kStop;
  // A rank that cannot hear it any more finds out for itself.
  Announce(communicator_, order).IgnoreError();
}

absl::Status RunFollower(Communicator& communicator, const RankFunction& run_rank) {
  while (true) {
    Order order{};
    COHORT_RETURN_IF_ERROR(Announce(communicator, order));
    if (order == Order::kIdle) continue;
    if (order == Order::kStop) return absl::OkStatus();
    COHORT_ASSIGN_OR_RETURN(const std::string bytes, ReceiveBytes(communicator, 0));
    COHORT_ASSIGN_OR_RETURN(const RankStep step, DecodeStep(bytes));
    const absl::StatusOr<RankResult> result = run_rank(step);
    const absl::Status sent = SendBytes(communicator, 0, EncodeAnswer(result));
    if (!result.ok()) return result.status();
    COHORT_RETURN_IF_ERROR(sent);
  }
}

}  // namespace cohort::serving
