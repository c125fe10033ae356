#include "parallel/pipeline/executor.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/metrics/waited.h"
#include "runtime/model/half_stream.h"

namespace cohort::parallel::pipeline {

using runtime::LossSums;
using runtime::Tensor;
using runtime::TokenBatch;

namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

absl::Status Where(const absl::Status& status, const Action& action) {
  if (status.ok()) return status;
  absl::Status where(status.code(), absl::StrCat("pipeline action ", action.DebugString(), " (",
                                                 Name(action.kind), "): ", std::string(status.message())));
  // comm::ExclusionOf
  status.ForEachPayload(
      [&](absl::string_view type, const absl::Cord& payload) { where.SetPayload(type, payload); });
  return where;
}

}  // namespace

struct Executor::Step {
  absl::Span<const TokenBatch> micro_batches;
  const runtime::LossScale& scale;
  std::vector<std::vector<LossSums>>& sums;  // [stage][micro-batch]
  std::map<std::pair<int, int>, std::unique_ptr<runtime::Decoder::Saved>> saved =
      {};                             // by (stage, micro-batch)
  std::vector<Message> awaited = {};  // from other ranks, in the order in which they are needed
  size_t posted = 0;                  // of these
  Clock::time_point began = Clock::now();
  double ready = 0;  // when the action under way had what it needs
};

int Executor::SourceOf(const Message& message) const {
  const int from = message.direction == Direction::kForward ? message.stage - 1 : message.stage + 1;
  return from < stages() ? from : -1;
}

// Micro-batches of a step never share a tag, nor do the two directions.
int Executor::TagOf(const Message& message) const {
  return (message.micro_batch * stages() + message.stage) * 2 +
         (message.direction == Direction::kBackward ? 1 : 0);
}

bool Executor::InputOf(const Action& action, Message& message) const {
  if (action.kind == ActionKind::kBackwardWeight) return false;
  message = {action.stage, action.micro_batch,
             action.kind == ActionKind::kForward ? Direction::kForward : Direction::kBackward};
  return SourceOf(message) >= 0;
}

void Executor::PostReceives(Step& step, size_t count) {
  while (receives_.size() < count && step.posted < step.awaited.size()) {
    const Message& message = step.awaited[step.posted++];
    runtime::Decoder& decoder = *stages_.at(message.stage);
    const TokenBatch& batch = step.micro_batches[static_cast<size_t>(message.micro_batch)];
    Tensor tensor = Tensor::Empty(decoder.device(), {LocalRows(batch, tensor_), decoder.config().hidden_size},
                                  decoder.compute());
    comm::Work work = ranks_->Recv(tensor.raw(), static_cast<size_t>(tensor.size()), tensor.dtype(),
                                   rank_of_[static_cast<size_t>(SourceOf(message))], TagOf(message));
    receives_.push_back({message, std::move(tensor), std::move(work)});
  }
}

absl::StatusOr<Tensor> Executor::Take(const Message& message, Step& step) {
  const int from = SourceOf(message);
  if (from < 0) return Tensor();
  if (rank_of_[static_cast<size_t>(from)] == rank()) {
    const auto found = kept_.find(message);
    COHORT_CHECK(found != kept_.end(), "stage %d wants what no stage here has made for micro-batch %d",
                 message.stage, message.micro_batch);
    return std::move(kept_.extract(found).mapped());
  }
  PostReceives(step, static_cast<size_t>(receives_ahead_) + 1);
  COHORT_CHECK(receives_.front().message == message, "stage %d takes a message before its turn",
               message.stage);
  const runtime::WaitScope waits("wait for a stage");
  // What fails stays: its buffer is still the communicator's.
  COHORT_RETURN_IF_ERROR(receives_.front().work.Wait());
  Tensor taken = std::move(receives_.front().tensor);
  receives_.pop_front();
  return taken;
}

void Executor::Give(const Message& message, Tensor made) {
  if (message.stage < 0 || message.stage >= stages()) return;
  const int peer = rank_of_[static_cast<size_t>(message.stage)];
  if (peer == rank()) {
    kept_[message] = std::move(made);
    return;
  }
  made.device().Synchronize();
  comm::Work work =
      ranks_->Send(made.raw(), static_cast<size_t>(made.size()), made.dtype(), peer, TagOf(message));
  sends_.push_back({message, std::move(made), std::move(work)});
}

void Executor::DropSends() {
  std::erase_if(sends_, [](const InFlight& send) { return send.work.Done(); });
}

absl::Status Executor::FinishMessages(absl::Status status) {
  if (!status.ok() && ranks_->size() > 1) ranks_->Abort(status);
  const runtime::WaitScope waits("wait for a stage");
  for (std::deque<InFlight>* all : {&sends_, &receives_}) {
    for (InFlight& message : *all) status.Update(message.work.Wait());
    all->clear();
  }
  kept_.clear();
  return status;
}

absl::Status Executor::Do(const Action& action, Step& step) {
  const int stage = action.stage, micro_batch = action.micro_batch;
  runtime::Decoder& decoder = *stages_.at(stage);
  const auto key = std::make_pair(stage, micro_batch);
  Tensor input;
  Message message{};
  if (InputOf(action, message)) {
    COHORT_ASSIGN_OR_RETURN(input, Take(message, step));
  }
  PostReceives(step, static_cast<size_t>(receives_ahead_));
  step.ready = SecondsSince(step.began);
  Tensor made;
  switch (action.kind) {
    case ActionKind::kForward: {
      LossSums& sum = step.sums[static_cast<size_t>(stage)][static_cast<size_t>(micro_batch)];
      COHORT_ASSIGN_OR_RETURN(made, decoder.Forward(step.micro_batches[static_cast<size_t>(micro_batch)],
                                                    step.scale, input, &step.saved[key], &sum));
      Give({stage + 1, micro_batch, Direction::kForward}, std::move(made));
      return absl::OkStatus();
    }
    case ActionKind::kBackwardWeight:
      return decoder.BackwardWeight(*step.saved.extract(key).mapped());
    case ActionKind::kBackward: {
      COHORT_ASSIGN_OR_RETURN(made, decoder.Backward(input, *step.saved.extract(key).mapped()));
      break;
    }
    case ActionKind::kBackwardInput: {
      COHORT_ASSIGN_OR_RETURN(made, decoder.BackwardInput(input, *step.saved.at(key)));
      break;
    }
  }
  Give({stage - 1, micro_batch, Direction::kBackward}, std::move(made));
  return absl::OkStatus();
}

absl::Status Executor::Run(const Schedule& schedule, absl::Span<const TokenBatch> micro_batches,
                           const runtime::LossScale& scale, std::vector<std::vector<LossSums>>& sums,
                           ExecutorTrace* trace, const std::function<void(const Action&)>& enter) {
  COHORT_CHECK(static_cast<int>(micro_batches.size()) == schedule.micro_batches,
               "%zu micro-batches for a schedule of %d", micro_batches.size(), schedule.micro_batches);
  COHORT_CHECK(schedule.rank_of == rank_of_, "a schedule of %d stages that are elsewhere", schedule.stages());
  sums.assign(static_cast<size_t>(stages()), std::vector<LossSums>(micro_batches.size()));
  Step step{.micro_batches = micro_batches, .scale = scale, .sums = sums};
  const std::vector<Action>& list = schedule.actions[static_cast<size_t>(rank())];
  for (const Action& action : list) {
    Message message{};
    if (InputOf(action, message) && rank_of_[static_cast<size_t>(SourceOf(message))] != rank()) {
      step.awaited.push_back(message);
    }
  }
  runtime::Device& device = stages_.begin()->second->device();
  const auto before = static_cast<int64_t>(device.allocated_bytes());
  absl::Status status;
  for (const Action& action : list) {
    if (enter) enter(action);
    status = Where(Do(action, step), action);
    if (!status.ok()) break;
    if (trace != nullptr) {
      device.Synchronize();
      trace->line.push_back({action, step.ready, SecondsSince(step.began)});
    }
    DropSends();
    if (trace != nullptr) trace->kept.push_back(static_cast<int64_t>(device.allocated_bytes()) - before);
  }
  status = FinishMessages(std::move(status));
  if (trace != nullptr) trace->seconds = SecondsSince(step.began);
  return status;
}

absl::Status Executor::Evaluate(const TokenBatch& micro_batch, std::vector<LossSums>& sums) {
  sums.assign(static_cast<size_t>(stages()), {});
  const runtime::LossScale scale;
  std::vector<std::vector<LossSums>> none;
  Step step{.micro_batches = absl::MakeConstSpan(&micro_batch, 1), .scale = scale, .sums = none};
  const auto run = [&](int stage, runtime::Decoder& decoder) -> absl::Status {
    const Message message{stage, 0, Direction::kForward};
    COHORT_ASSIGN_OR_RETURN(const Tensor x, Take(message, step));
    COHORT_ASSIGN_OR_RETURN(
        Tensor y, decoder.Forward(micro_batch, scale, x, nullptr, &sums[static_cast<size_t>(stage)]));
    Give({stage + 1, 0, Direction::kForward}, std::move(y));
    return absl::OkStatus();
  };
  // Ascending: a stage of this rank never waits for a later one here.
  for (const auto& [stage, decoder] : stages_) {
    const Message message{stage, 0, Direction::kForward};
    const int from = SourceOf(message);
    if (from >= 0 && rank_of_[static_cast<size_t>(from)] != rank()) step.awaited.push_back(message);
  }
  absl::Status status;
  for (const auto& [stage, decoder] : stages_) {
    status = run(stage, *decoder);
    if (!status.ok()) break;
  }
  return FinishMessages(std::move(status));
}

}  // namespace cohort::parallel::pipeline
