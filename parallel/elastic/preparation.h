// The next mesh of a training, made while the present one trains, and entered in the middle of a step:
//
//   Begin        at a boundary: newcomers are members of the world; the mesh stays
//   (thread)     one decides the next mesh; all make their parts of it, plan what moves, and connect
//   BeginMove    at a later boundary: the state after that step moves to the new parts, on a thread, while the old mesh
//                computes the gradients of the next step, which changes none of it
//   TakeOver     those gradients move, and the new mesh makes the update with them
//
// Nothing is lost when any of this fails: the old part and its state are what they were.
#pragma once

#include <atomic>
#include <future>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "parallel/elastic/elastic_run.h"
#include "parallel/elastic/greeting.h"
#include "parallel/reshard/move_training.h"
#include "runtime/collectives/over_device.h"
#include "runtime/train/step_loop.h"

namespace cohort::parallel {

// Not thread-safe, but for what it does itself. What is given to it outlives it.
class Preparation {
 public:
  // Collective over `world`, whose members the standing numbers; this rank is a newcomer or not.
  static absl::StatusOr<std::unique_ptr<Preparation>> Begin(comm::Communicator& world, Standing standing,
                                                            bool newcomer, const ElasticOptions& options,
                                                            runtime::Device& device, ElasticHost& host);
  // Waits for its thread, which waits for those of all other ranks: where one may not come, Abort before.
  ~Preparation();
  Preparation(const Preparation&) = delete;

  // Ends what the thread waits for, on all ranks.
  void Abort(const absl::Status& why) { side_->Abort(why); }

  // Where all ranks have made their parts this is true on all soon: any of them may ask.
  bool made() const { return made_.load(); }
  // Waits for it.
  absl::Status WaitUntilMade();

  // `now`: this rank's part of the old mesh; null where it has none. It stays, and so does its state until TakeOver.
  void BeginMove(ElasticPart* now);
  // Collective over all ranks. `mine`: on those of the old mesh, the step that its step loop has handed over, and what
  // the training has counted before it. Afterwards the new part has the state and the gradients.
  struct Taken {
    runtime::StepGradients gradients;
    ElasticCounts counts;
  };
  absl::StatusOr<Taken> TakeOver(const std::optional<runtime::StepGradients>& mine,
                                 const ElasticCounts& counts);

  const Standing& standing() const { return standing_; }
  const v1::ElasticDecision& decision() const { return decision_; }
  // Ranks of the world that are not in the new mesh.
  std::vector<int> spares() const;
  const ReshardTotals& moved() const { return moved_; }
  // After TakeOver.
  std::unique_ptr<ElasticPart> TakePart() { return std::move(next_); }

 private:
  Preparation(Standing standing, bool newcomer, uint32_t epoch, const ElasticOptions& options,
              runtime::Device& device, ElasticHost& host)
      : standing_(std::move(standing)),
        newcomer_(newcomer),
        epoch_(epoch),
        options_(options),
        device_(device),
        host_(host) {}
  absl::Status Make();
  absl::Status MakeOwn();
  absl::Status PlanMoves();

  const Standing standing_;
  const bool newcomer_;
  const uint32_t epoch_;
  const ElasticOptions& options_;
  runtime::Device& device_;
  ElasticHost& host_;
  std::unique_ptr<comm::Communicator> side_;  // of all ranks of the world, for this alone

  // The thread's until it has ended.
  v1::ElasticDecision decision_;
  std::unique_ptr<ElasticPart> next_;
  runtime::LaterLinks links_;  // of its devices, which the mesh that trains uses meanwhile
  Move state_, gradients_;
  ReshardTotals moved_;
  std::unique_ptr<Resharder> resharder_;

  HeldState old_gradients_;
  std::atomic<bool> made_ = false;
  std::future<absl::Status> making_, moving_;
};

}  // namespace cohort::parallel
