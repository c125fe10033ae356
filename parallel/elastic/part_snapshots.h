// Snapshots of a rank's part of a training, in the memory of its host's keeper (runtime/elastic), and what a change of
// ranks finds there.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "parallel/elastic/elastic_run.h"
#include "parallel/elastic/part_parity.h"
#include "runtime/elastic/keeper/keeper.h"
#include "runtime/elastic/snapshot/snapshotter.h"

namespace cohort::parallel {

// One thread. The part that it follows outlives what is being copied of it. A keeper that is gone is replaced; where
// that fails too, the training goes on without snapshots until the next part, and `problem` says why.
class PartSnapshots {
 public:
  // every: steps; 0: none.
  PartSnapshots(runtime::elastic::KeeperOptions keeper, int64_t every, ParityOptions parity = {});
  ~PartSnapshots();

  // This is what runs from now on, as member `member` of the world. Its state is copied at once: what was kept of the
  // mesh before stays until that is whole on all ranks. With parity collective over the part's group, whose errors it
  // returns.
  absl::Status Follow(ElasticPart& part, int member, const ElasticCounts& counts);
  // The three moments of a step (StepCallbacks).
  absl::Status AfterGradients();
  void BeforeUpdate();
  void AfterUpdate(const ElasticCounts& counts);

  // Collective over `world` where there is parity: what hosts that are lost held comes back, and Kept has it.
  absl::Status Recover(comm::Communicator& world);
  // Own generations, and those of members that are gone: each of one of the ranks of this host. What it points to stays
  // until the next Follow.
  std::vector<KeptState> Kept(const comm::Communicator& world);

  const absl::Status& problem() const { return problem_; }
  runtime::elastic::SnapshotCosts costs() const;
  // The job is over: nothing is kept any more.
  void End();

 private:
  absl::Status Connect();
  absl::Status Start(ElasticPart& part, int member, const ElasticCounts& counts);
  absl::StatusOr<KeptState> StateOf(const runtime::elastic::Image& image, int mesh_rank) const;
  void ForgetSuperseded();

  const runtime::elastic::KeeperOptions options_;
  const int64_t every_;
  const ParityOptions parity_options_;
  std::unique_ptr<runtime::elastic::Keeper> keeper_;
  std::unique_ptr<runtime::elastic::Snapshotter> snapshotter_, before_;
  std::unique_ptr<PartParity> parity_, parity_before_;
  int64_t step_ = 0;        // of the state that there is
  uint32_t epoch_ = 0;      // of the mesh
  int64_t begun_ = -1;      // the step of the generation that is not known to be complete
  bool first_ = false;      // no generation of this mesh is complete
  bool cleans_ = false;     // this rank is the first of its host
  std::vector<int> alive_;  // members at the last change
  struct Counts {
    int64_t tokens = 0;
    double seconds = 0;
  } counts_;  // a piece of the snapshot
  std::vector<runtime::elastic::MappedSegment> mapped_;
  std::vector<RecoveredImage> recovered_;
  absl::Status problem_;
};

}  // namespace cohort::parallel
