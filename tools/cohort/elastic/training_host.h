// What an elastic training asks of its process: data, snapshots and checkpoints, the log, and what the coordinator is told.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cohort/v1/config.pb.h"
#include "parallel/elastic/elastic_run.h"
#include "parallel/elastic/part_snapshots.h"
#include "runtime/elastic/coordinator/tie_bond.h"
#include "runtime/elastic/detect/step_watch.h"
#include "runtime/model/model_config.h"
#include "tools/cohort/elastic/job.h"
#include "tools/cohort/run_log.h"
#include "tools/cohort/training_setup.h"
#include "tools/cohort/training_state.h"

namespace cohort::tools {

// One process: what the run asks of it.
class TrainingHost final : public parallel::ElasticHost {
 public:
  // `begun`: the training has begun before this process came to it. What is given by reference outlives this.
  TrainingHost(const v1::TrainConfig& config, const runtime::ModelConfig& model, const TrainingData& data,
               runtime::Device& device, double flops, ElasticJob& job, bool begun);

  std::string name() override { return job_.client().name(); }
  std::shared_ptr<comm::JoinBoard> board() override { return job_.board(); }
  std::function<bool(const std::vector<int>&)> Tie(uint32_t epoch, const std::vector<int>& members) override;
  bool AwaitTie(uint32_t epoch) override { return tie_.Await(epoch); }
  void OnTied() override { tie_.Bind(); }
  bool NewcomersWait() override;
  bool MayEnter() override;
  bool AskedToLeave() override;
  // This rank goes because it is a straggler.
  bool evicted() const { return evicted_; }

  std::unique_ptr<parallel::BatchSource> MakeSource() override;
  // Its host's keeper may have to be started.
  void WarmUp(const comm::Communicator& world) override { (void)snapshots_.Kept(world); }
  absl::StatusOr<parallel::ElasticCounts> Load(parallel::ElasticPart& part) override;
  absl::Status Save(parallel::ElasticPart& part, const parallel::ElasticCounts& counts, bool more) override;

  absl::StatusOr<std::string> Recover(comm::Communicator& world) override {
    return snapshots_.Recover(world);
  }
  std::vector<parallel::KeptState> Kept(const comm::Communicator& world) override {
    return snapshots_.Kept(world);
  }
  absl::Status AfterGradients() override { return snapshots_.AfterGradients(); }
  absl::Status BeforeUpdate() override;
  absl::Status AfterUpdate(parallel::ElasticPart&, const parallel::ElasticCounts& counts) override;

  void AfterSpareStep() override { snapshots_.AfterSpareStep(); }

  void OnMove(const parallel::ElasticChange& change) override;
  absl::Status OnChange(parallel::ElasticPart& part, const parallel::ElasticChange& change) override;
  void OnRepair(int64_t step, const std::string& words) override;
  void OnEdit(uint32_t epoch, const std::vector<std::string>& names) override { tie_.SetGroup(epoch, names); }
  void OnLeft(uint32_t epoch, const std::vector<std::string>& names) override;
  void OnUpdate(const runtime::StepReport& report) override { updated_ = MetricsOf(report); }
  void OnStep(const runtime::StepReport& report) override;
  void OnEvaluation(int64_t step, const runtime::Trainable::Evaluation& evaluation) override;
  void OnSaveFailed(int64_t step, const absl::Status& status) override;

  // The training is over, for all or for this process.
  void End(parallel::ElasticEnd end);

 private:
  // As elastic.stragglers says. Who goes goes, though the coordinator judges nobody yet on the next mesh.
  bool IsEvicted();

  absl::Status OpenLog(const parallel::ElasticPart& part, const parallel::ElasticChange& change);

  void TellSaved(const std::optional<parallel::BackgroundSave::Outcome>& saved);

  const v1::TrainConfig config_;
  const runtime::ModelConfig model_;
  const TrainingData& data_;
  runtime::Device& device_;
  const double flops_;
  ElasticJob& job_;
  cluster::TieBond tie_;
  TrainingState state_;
  parallel::PartSnapshots snapshots_;
  std::unique_ptr<RunLog> log_;
  cluster::EpochAdvance told_;
  bool first_ = false;
  bool loaded_;  // some state of this training has been: where it is lost, the newest checkpoint counts
  int64_t awaited_save_ = -1;   // by newcomers
  std::deque<float> computed_;  // seconds, of the newest steps on this mesh
  runtime::elastic::StepWatch watch_;
  int stage_ = 0;
  std::optional<runtime::StepMetrics>
      updated_;       // the newest step: whoever writes the log may die before it does
  int64_t step_ = 0;  // done
  bool evicted_ = false;
};

}  // namespace cohort::tools
