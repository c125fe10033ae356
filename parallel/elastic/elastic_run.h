// A training that outlives its ranks, as one rank sees it: steps until something changes, then the members agree who is
// there, choose a mesh, move what must move, and go on with the same step.
//
//   faults:      an operation fails -> all groups end -> Edit -> Change
//   boundaries:  somebody wants to go -> all leave the step loop -> Edit -> Change
//                somebody waits to join -> Edit; the mesh trains on, and beside it the next one is made (preparation.h);
//                at a later boundary the state moves there beside a step, in the middle of which all go over
//   Change:      every rank says what it has (ElasticHello); one plans the mesh (next_mesh.h); all see where the state comes
//                from (sources.h) and move it (reshard/move_training.h)
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/v1/elastic.pb.h"
#include "comm/communicator.h"
#include "parallel/batch_source.h"
#include "parallel/elastic/sources.h"
#include "parallel/parallel_model.h"
#include "runtime/device/device.h"
#include "runtime/train/step_loop.h"

namespace cohort::parallel {

struct ElasticOptions {
  v1::TrainConfig config;  // complete, for the ranks of the start; newcomers: of any mesh of the training
  runtime::ModelConfig model;
  runtime::StepLoopOptions loop = {};
  // Matrix products of this rank a second, by which meshes are planned. Measured beforehand: a change has no time for it.
  double flops = 1e11;
  // Ranks that hold the same state compare it after every so many steps, and who differs is repaired; 0: never.
  int64_t check_every = 0;
  // A member that does not come to a change for so long is taken to be lost.
  absl::Duration patience = absl::Seconds(5);
  // Of moving the state.
  absl::Duration move_timeout = absl::Seconds(60);
};

// A rank's part of a training on one mesh.
struct ElasticPart {
  v1::ElasticMesh mesh;
  std::shared_ptr<comm::Communicator> group;  // of the mesh's ranks; null: this rank is spare
  std::unique_ptr<ParallelModel> model;
  runtime::OptimizerState optimizer;

  bool spare() const { return model == nullptr; }
};

// State that this rank has of some rank of a mesh, beside what it trains: from a snapshot.
struct KeptState {
  v1::ElasticMesh mesh;
  v1::ElasticOffer offer;
  std::vector<const void*>
      pieces;  // in the order of LayoutOf(mesh), each whole; they stay until the change is over
};

struct ElasticCounts {
  int64_t step = 0, tokens = 0;
  double seconds = 0;
};

struct ElasticChange {
  uint32_t epoch = 0;
  int member = 0;                       // this process
  std::string cause;                    // in words: the fault, or who came and went
  std::vector<int> lost, left, joined;  // members
  std::string mesh;                     // in words
  std::string why;                      // this one
  ElasticCounts counts;                 // that training goes on from
  bool from_disk = false;               // the state of the ranks was not whole
  ReshardTotals moved;
  std::vector<std::string> names;  // of the world's ranks, as they say
  // From the error or the boundary to here. Of a mesh that was made beside the one before: for how long no step was made.
  double seconds = 0;
  bool beside = false;
};

// What is outside: people, newcomers, disks, snapshots. Called by the thread that runs; none may wait for other ranks
// but those that say so.
class ElasticHost {
 public:
  virtual ~ElasticHost() = default;

  // Of this process, for people.
  virtual std::string name() { return ""; }
  // Where newcomers wait; null: nobody joins.
  virtual std::shared_ptr<comm::JoinBoard> board() { return nullptr; }
  // Which half of the members (by rank of the world) goes on in the epoch after `epoch`: comm::EditOptions::tie. Only asked
  // where ranks are on several hosts. The lowest one's where nobody outside can say.
  virtual std::function<bool(const std::vector<int>& half)> Tie(uint32_t /*epoch*/,
                                                                const std::vector<int>& /*members*/) {
    return nullptr;
  }
  // There was no quorum after `epoch`: waits until it is known whether the half that was first is dead. True: this half is
  // to edit again.
  virtual bool AwaitTie(uint32_t /*epoch*/) { return false; }
  // This half has decided: it goes on by the word of whoever Tie asks.
  virtual void OnTied() {}
  // Asked at each boundary, answers at once.
  virtual bool NewcomersWait() { return false; }
  virtual bool AskedToLeave() { return false; }
  // Asked at each boundary where a mesh for newcomers is made: whether it may be entered now, which ends what follows the
  // mesh that trains (a checkpoint that is being written).
  virtual bool MayEnter() { return true; }

  // May be called by another thread than the others, at any time.
  virtual std::unique_ptr<BatchSource> MakeSource() = 0;
  // Of a newcomer, before its first part, while others train: what takes its time. By another thread, when none of the
  // others but MakeSource is called.
  virtual void WarmUp(const comm::Communicator& /*world*/) {}
  // Collective over the part's group. The state that training begins with, or, where ranks have lost theirs, goes on from:
  // of the newest checkpoint.
  virtual absl::StatusOr<ElasticCounts> Load(ElasticPart& part) = 0;
  // Collective over the part's group. `more`: steps follow, so it may be written meanwhile, and how that ended be told
  // later; else it is on the disk when this returns.
  virtual absl::Status Save(ElasticPart& part, const ElasticCounts& counts, bool more) = 0;

  // Collective over the world, before Kept: whatever of lost hosts can come back from others. What cannot, in words.
  virtual absl::StatusOr<std::string> Recover(comm::Communicator&) { return ""; }
  // The state that this host keeps of any rank: at a change, of the members that there are now.
  virtual std::vector<KeptState> Kept(const comm::Communicator&) { return {}; }
  // Around what changes the state (StepCallbacks).
  virtual absl::Status AfterGradients() { return absl::OkStatus(); }
  virtual absl::Status BeforeUpdate() { return absl::OkStatus(); }
  virtual absl::Status AfterUpdate(ElasticPart&, const ElasticCounts&) { return absl::OkStatus(); }
  // The update of this step is made here; whatever fails after it, OnStep does not come, and the step may count.
  virtual void OnUpdate(const runtime::StepReport&) {}
  // Of a spare rank, in place of these: the others have made a step, or begin with the first on this mesh.
  virtual void AfterSpareStep() {}

  // The world is another one: the names of all members, by rank. The mesh that trains may stay.
  virtual void OnEdit(uint32_t /*epoch*/, const std::vector<std::string>& /*names*/) {}
  // Those who wanted to leave are gone; the names of those who stay, by rank of the world. The part that runs stays.
  virtual void OnLeft(uint32_t /*epoch*/, const std::vector<std::string>& /*names*/) {}
  // The state begins to move to a mesh that was made beside this one, which goes on with one more step meanwhile. Said on
  // all ranks; OnChange follows, of this change or, where somebody is lost now, of another one.
  virtual void OnMove(const ElasticChange& /*change*/) {}
  // The part is what runs from now on, in the state after counts.step steps.
  virtual absl::Status OnChange(ElasticPart& part, const ElasticChange& change) = 0;
  // Ranks of the mesh held other bits than their peers, and have been given these.
  virtual void OnRepair(int64_t /*step*/, const std::string& /*words*/) {}
  virtual void OnStep(const runtime::StepReport&) {}
  virtual void OnEvaluation(int64_t, const runtime::Trainable::Evaluation&) {}
  virtual void OnSaveFailed(int64_t, const absl::Status&) {}
};

enum class ElasticEnd {
  kDone,     // the steps are done, or the time is up
  kStopped,  // all ranks were asked to leave: saved
  kLeft,     // this rank was asked to leave, and the others go on
};

// Collective over the world that the ranks form, who come, and who join (comm::Communicator::Join) while it runs. A
// step that is under way when a rank is lost is done again. `world` stays, and is edited.
// FAILED_PRECONDITION: this rank is no member any more (it may join again), or its side has too few to go on; other
// errors: nothing that a change of ranks would mend.
absl::StatusOr<ElasticEnd> RunElastic(std::shared_ptr<comm::Communicator> world,
                                      const ElasticOptions& options, runtime::Device& device,
                                      ElasticHost& host);

}  // namespace cohort::parallel
