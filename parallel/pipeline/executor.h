// Runs a pipeline schedule: this rank's list, action by action.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "comm/communicator.h"
#include "parallel/pipeline/policy.h"
#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/simulate.h"
#include "runtime/model/decoder.h"

namespace cohort::parallel::pipeline {

// What a run did on this rank, for whoever holds it against the simulator and the memory model.
struct ExecutorTrace {
  // In the order of the list: seconds since the run began; an action begins when all it needs is here.
  std::vector<TimedAction> line;
  // Bytes of the device after each action, more than before the run: activations, and messages that wait.
  std::vector<int64_t> kept;
  double seconds = 0;  // until the last message was out of this rank's hands
};

// The stages of this rank are the decoder's parts that `rank_of` places here. Activations go to the next stage's rank as
// soon as they are there, and their memory goes back when that rank has them; a rank waits only for what its next
// action needs. One thread. Errors are the communicator's or the decoders'; after the first, messages of this step are
// lost and others still wait for them, so all ranks of the pipeline fail with it, now and in later calls.
class Executor {
 public:
  // `rank_of`: by stage, in the numbering of `ranks`, which are over the memory of the decoders' device
  // (runtime/collectives) and whose messages are this object's alone. The decoders outlive this.
  Executor(std::vector<int> rank_of, std::shared_ptr<comm::Communicator> ranks,
           std::map<int, runtime::Decoder*> stages, runtime::TensorGroup& tensor)
      : rank_of_(std::move(rank_of)), ranks_(std::move(ranks)), stages_(std::move(stages)), tensor_(tensor) {}

  // Messages posted ahead, instead of policy::kReceivesAhead; 0: each when it is needed.
  void SetReceivesAhead(int messages) { receives_ahead_ = messages; }

  // One step: all micro-batches of `schedule`, which is proved and places the stages as here, forward and backward.
  // sums[s][m]: what stage s, of this rank, adds up of micro-batch m (empty for others' stages). trace: null where
  // nobody asks. `enter`, where there is one, is told what comes next.
  absl::Status Run(const Schedule& schedule, absl::Span<const runtime::TokenBatch> micro_batches,
                   const runtime::LossScale& scale, std::vector<std::vector<runtime::LossSums>>& sums,
                   ExecutorTrace* trace = nullptr, const std::function<void(const Action&)>& enter = nullptr);
  // One micro-batch forward. sums[s]: of stage s.
  absl::Status Evaluate(const runtime::TokenBatch& micro_batch, std::vector<runtime::LossSums>& sums);

 private:
  enum class Direction : uint8_t { kForward, kBackward };
  // What goes into `stage`: activations, or the gradient of what it made.
  struct Message {
    int stage;
    int micro_batch;
    Direction direction;
    bool operator==(const Message&) const = default;
    auto operator<=>(const Message&) const = default;
  };
  struct InFlight {
    Message message;
    runtime::Tensor tensor;
    comm::Work work;
  };
  struct Step;  // what one Run works on

  int rank() const { return ranks_->rank(); }
  int stages() const { return static_cast<int>(rank_of_.size()); }
  // The stage that makes it; -1: it is nobody's.
  int SourceOf(const Message& message) const;
  int TagOf(const Message& message) const;
  // What an action takes from another stage; false: nothing.
  bool InputOf(const Action& action, Message& message) const;

  absl::Status Do(const Action& action, Step& step);
  // Posts receives until `count` are under way, or none is left.
  void PostReceives(Step& step, size_t count);
  // [t, D], from this rank's own hands or another's; undefined where nobody makes it.
  absl::StatusOr<runtime::Tensor> Take(const Message& message, Step& step);
  void Give(const Message& message, runtime::Tensor made);
  // Lets go of what has been received.
  void DropSends();
  // Waits for all messages; tells the others of an error.
  absl::Status FinishMessages(absl::Status status);

  const std::vector<int> rank_of_;
  const std::shared_ptr<comm::Communicator> ranks_;
  const std::map<int, runtime::Decoder*> stages_;
  runtime::TensorGroup& tensor_;
  int receives_ahead_ = policy::kReceivesAhead;
  std::map<Message, runtime::Tensor> kept_;  // between two stages of this rank
  std::deque<InFlight> receives_;            // in the order in which they are needed
  std::deque<InFlight> sends_;
};

}  // namespace cohort::parallel::pipeline
