#include "parallel/pipeline/executor.h"

#include <tuple>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/global_sums.h"
#include "runtime/metrics/chrome_trace.h"
#include "runtime/model/half_stream.h"

namespace cohort::parallel::pipeline {

using runtime::LossSums;
using runtime::Tensor;
using runtime::TokenBatch;

namespace {

// Micro-batches of a step never share a tag, nor do the two directions.
int Tag(int stage, int micro_batch, int stages, bool backward) {
  return (micro_batch * stages + stage) * 2 + (backward ? 1 : 0);
}

absl::Status Where(const absl::Status& status, const Action& action) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("pipeline action ", action.DebugString(), " (",
                                                  Name(action.kind), "): ", std::string(status.message())));
}

}  // namespace

int Executor::Next(int stage, Direction direction) const {
  const int next = direction == Direction::kForward ? stage + 1 : stage - 1;
  return next < schedule_.stages() ? next : -1;
}

absl::StatusOr<Tensor> Executor::Take(int stage, int micro_batch, Direction direction,
                                      const TokenBatch& batch) {
  const int from = direction == Direction::kForward ? stage - 1 : stage + 1;
  if (from < 0 || from >= schedule_.stages()) return Tensor();
  if (schedule_.rank_of[from] == rank()) {
    const auto found = kept_.find({stage, micro_batch, direction});
    COHORT_CHECK(found != kept_.end(), "stage %d wants what no stage here has made for micro-batch %d", stage,
                 micro_batch);
    return std::move(kept_.extract(found).mapped());
  }
  const runtime::TraceScope trace("wait for a stage");
  runtime::Decoder& decoder = *stages_.at(stage);
  const Tensor taken = Tensor::Empty(
      decoder.device(), {LocalRows(batch, tensor_), decoder.config().hidden_size}, decoder.compute());
  COHORT_RETURN_IF_ERROR(
      ranks_
          ->Recv(taken.raw(), static_cast<size_t>(taken.size()), taken.dtype(), schedule_.rank_of[from],
                 Tag(stage, micro_batch, schedule_.stages(), direction == Direction::kBackward))
          .Wait());
  return taken;
}

void Executor::Give(int stage, int micro_batch, Direction direction, Tensor made) {
  const int next = Next(stage, direction);
  if (next < 0) return;
  if (schedule_.rank_of[next] == rank()) {
    kept_[{next, micro_batch, direction}] = std::move(made);
    return;
  }
  made.device().Synchronize();
  comm::Work work =
      ranks_->Send(made.raw(), static_cast<size_t>(made.size()), made.dtype(), schedule_.rank_of[next],
                   Tag(next, micro_batch, schedule_.stages(), direction == Direction::kBackward));
  sends_.push_back({std::move(made), std::move(work)});
}

absl::Status Executor::FinishSends() {
  absl::Status first;
  for (InFlight& send : sends_) first.Update(send.work.Wait());
  sends_.clear();
  kept_.clear();
  return first;
}

absl::Status Executor::Run(absl::Span<const TokenBatch> micro_batches, const runtime::LossScale& scale,
                           std::vector<LossSums>& sums) {
  COHORT_CHECK(static_cast<int>(micro_batches.size()) == schedule_.micro_batches,
               "%zu micro-batches for a schedule of %d", micro_batches.size(), schedule_.micro_batches);
  sums.assign(static_cast<size_t>(schedule_.stages()), {});
  std::map<std::pair<int, int>, std::unique_ptr<runtime::Decoder::Saved>> saved;  // by (stage, micro-batch)

  const auto run = [&](const Action& action) -> absl::Status {
    const int stage = action.stage, micro_batch = action.micro_batch;
    runtime::Decoder& decoder = *stages_.at(stage);
    const TokenBatch& batch = micro_batches[static_cast<size_t>(micro_batch)];
    const auto key = std::make_pair(stage, micro_batch);
    if (action.kind == ActionKind::kForward) {
      COHORT_ASSIGN_OR_RETURN(const Tensor x, Take(stage, micro_batch, Direction::kForward, batch));
      LossSums part;
      COHORT_ASSIGN_OR_RETURN(Tensor y, decoder.Forward(batch, scale, x, &saved[key], &part));
      AddSums(part, sums[static_cast<size_t>(stage)]);
      Give(stage, micro_batch, Direction::kForward, std::move(y));
      return absl::OkStatus();
    }
    if (action.kind == ActionKind::kBackwardWeight) {
      return decoder.BackwardWeight(*saved.extract(key).mapped());
    }
    COHORT_ASSIGN_OR_RETURN(const Tensor dy, Take(stage, micro_batch, Direction::kBackward, batch));
    Tensor dx;
    if (action.kind == ActionKind::kBackward) {
      COHORT_ASSIGN_OR_RETURN(dx, decoder.Backward(dy, *saved.extract(key).mapped()));
    } else {
      COHORT_ASSIGN_OR_RETURN(dx, decoder.BackwardInput(dy, *saved.at(key)));
    }
    Give(stage, micro_batch, Direction::kBackward, std::move(dx));
    return absl::OkStatus();
  };

  absl::Status status;
  for (const Action& action : schedule_.actions[static_cast<size_t>(rank())]) {
    status = Where(run(action), action);
    if (!status.ok()) break;
  }
  status.Update(FinishSends());
  return status;
}

absl::Status Executor::Evaluate(const TokenBatch& micro_batch, std::vector<LossSums>& sums) {
  sums.assign(static_cast<size_t>(schedule_.stages()), {});
  absl::Status status;
  for (const auto& [stage, decoder] :
       stages_) {  // ascending: a stage of this rank never waits for a later one here
    absl::StatusOr<Tensor> x = Take(stage, 0, Direction::kForward, micro_batch);
    if (x.ok()) {
      x = decoder->Forward(micro_batch, runtime::LossScale(), *x, nullptr, &sums[static_cast<size_t>(stage)]);
    }
    status = x.status();
    if (!status.ok()) break;
    Give(stage, 0, Direction::kForward, *std::move(x));
  }
  status.Update(FinishSends());
  return status;
}

}  // namespace cohort::parallel::pipeline
