// Snapshots of a rank's part of a training, in the memory of its host's keeper (runtime/elastic), and what a change of
// ranks finds there.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "parallel/elastic/background_save.h"
#include "parallel/elastic/elastic_run.h"
#include "parallel/elastic/part_parity.h"
#include "runtime/elastic/keeper/keeper.h"
#include "runtime/elastic/snapshot/snapshotter.h"

namespace cohort::parallel {

struct PartSnapshotsOptions {
  int64_t every = 1;  // steps; 0: none
  ParityOptions parity = {};
  // Checkpoints are written from snapshots: there is memory for an image more.
  bool saves = false;
};

// One thread. The part that it follows outlives what is being copied of it. A keeper that is gone is replaced; where
// that fails too, the training goes on without snapshots until the next part, and `problem` says why.
//
// A generation of step s is copied while step s + 1 computes its gradients; its parity is encoded from then on until the
// next generation is copied, and it counts as complete before the update after that, which all ranks come to together.
class PartSnapshots {
 public:
  PartSnapshots(runtime::elastic::KeeperOptions keeper, PartSnapshotsOptions options);
  ~PartSnapshots();

  // This is what runs from now on, as member `member` of the world. Its state is copied at once: what was kept of the
  // mesh before stays until that is whole on all ranks. With parity or saves collective over the part's group, whose
  // errors it returns. A checkpoint that is being written is given up.
  absl::Status Follow(ElasticPart& part, int member, const ElasticCounts& counts);
  // The three moments of a step (StepCallbacks).
  absl::Status AfterGradients();
  void BeforeUpdate();
  void AfterUpdate(const ElasticCounts& counts);
  // Of a rank that has no part, in place of them, once a step and once before the first.
  void AfterSpareStep();

  // Whether checkpoints can be written in the background: the same on all ranks of the part.
  bool saves() const { return save_ != nullptr; }
  // All ranks of the part, after the update of this step and before the next: its generation is kept, whether it is due
  // or not, and its image written by `write` once it is whole. None may be under way.
  void Save(ElasticPart& part, const ElasticCounts& counts, WriteCheckpoint write);
  // The step of the checkpoint that is under way; -1: none is.
  int64_t saving() const { return saving_; }
  // How a save ended, once. wait: until it is over.
  std::optional<BackgroundSave::Outcome> Saved(bool wait);

  // Collective over `world` where there is parity: what hosts that are lost held comes back, and Kept has it. What does
  // not, in words.
  absl::StatusOr<std::string> Recover(comm::Communicator& world);
  // Own generations, and those of members that are gone: each of one of the ranks of this host. What it points to stays
  // until the next Follow.
  std::vector<KeptState> Kept(const comm::Communicator& world);

  const absl::Status& problem() const { return problem_; }
  // Where the keeper of this host was lost since the last call: in words, on one of its ranks.
  std::optional<std::string> TakeKeeperNews() { return std::exchange(keeper_news_, std::nullopt); }
  int keeper_pid() const { return keeper_ == nullptr ? 0 : keeper_->pid(); }
  runtime::elastic::SnapshotCosts costs() const;
  // The job is over: nothing is kept any more.
  void End();

 private:
  absl::Status Connect();
  void KeepKeeper();
  absl::Status Start(ElasticPart& part, int member, const ElasticCounts& counts);
  absl::StatusOr<KeptState> StateOf(const runtime::elastic::Image& image, int mesh_rank) const;
  void ForgetSuperseded();

  absl::Status Begin(const ElasticCounts& counts);
  void StartSave();
  void GiveUpSave();
  void FinishSave(BackgroundSave::Outcome outcome);

  const runtime::elastic::KeeperOptions keeper_options_;
  const PartSnapshotsOptions options_;
  std::unique_ptr<runtime::elastic::Keeper> keeper_;
  std::shared_ptr<runtime::elastic::Snapshotter> snapshotter_, before_;
  std::unique_ptr<PartParity> parity_, parity_before_;
  int64_t copying_ = -1;     // the step of the generation that is copied
  int64_t encoding_ = -1;    // of the one before, whose parity is encoded
  uint32_t epoch_ = 0;       // of the mesh
  int64_t begun_ = -1;       // the step of the generation that is not known to be complete
  int64_t spare_steps_ = 0;  // of the others, on this mesh
  bool first_ = false;       // no generation of this mesh is complete
  bool cleans_ = false;      // this rank is the first of its host
  std::vector<int> alive_;   // members at the last change
  struct Counts {
    int64_t tokens = 0;
    double seconds = 0;
  } counts_;  // a piece of the snapshot
  std::vector<runtime::elastic::MappedSegment> mapped_;
  std::vector<RecoveredImage> recovered_;
  // Of the checkpoint that is being written: its step, -1: none, and what is needed until its image is whole.
  int64_t saving_ = -1;
  bool pinned_ = false;
  ElasticPart* saved_part_ = nullptr;
  WriteCheckpoint write_;
  std::optional<BackgroundSave::Outcome> saved_;
  std::unique_ptr<BackgroundSave> save_;  // of this mesh
  // Of a mesh before, which may still be writing from its snapshots; these outlive it.
  std::shared_ptr<runtime::elastic::Snapshotter> read_;
  std::unique_ptr<BackgroundSave> given_up_;
  absl::Status problem_;
  absl::Time keeper_again_ = absl::InfinitePast();  // when one that could not be replaced is tried again
  std::optional<std::string> keeper_news_;
};

}  // namespace cohort::parallel
