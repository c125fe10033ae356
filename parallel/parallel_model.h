// A model spread over ranks, as the step loop sees it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/batch_feed.h"
#include "parallel/batch_source.h"
#include "parallel/determinism/virtual_shards.h"
#include "parallel/mesh_communicators.h"
#include "parallel/pipeline/executor.h"
#include "parallel/pipeline_plan.h"
#include "parallel/sharding/sharded_parameters.h"
#include "parallel/tied_embedding.h"
#include "runtime/model/decoder.h"
#include "runtime/train/trainable.h"

namespace cohort::parallel {

struct ParallelOptions {
  DataType compute = DataType::kF32;
  bool recompute = false;
  int64_t global_batch = 1;  // sequences in a step over all ranks; any number
  int64_t micro_batch = 0;   // sequences that a rank computes at once; 0: its whole share
  Sharding sharding = {};  // of parameters, gradients and optimizer state over ranks that hold the same ones
  ContextOptions context = {};  // how context groups share sequences
  // Sequences of mixed lengths over the batch axes as each needs it, in place of micro_batch.
  std::optional<HybridOptions> hybrid = std::nullopt;
  std::string schedule = "1f1b";  // of the pipeline: a row of pipeline/schedules, or a file (schedule_file.h)
  int stages_per_rank = 1;        // of the pipeline; a file says it itself
  BlockCosts block_costs = {};    // by which blocks are dealt to the stages
  // Of the batches of tensor groups: halves, of which one is computed while the other travels. Nothing: no halves.
  std::optional<SplitRule> split_batch = std::nullopt;
  // The same bits on any number of ranks along the replicate, shard, expert and pipeline axes
  // (parallel/determinism). Micro-batches then are virtual shards of the global batch or parts of them.
  bool deterministic = false;
  int virtual_shards = 0;  // 0: VirtualShards::kDefault; never more than global_batch
};

// A pipeline stage of this rank: its run of layers and their parameters.
struct ModelPart {
  int stage;
  std::unique_ptr<runtime::Decoder> decoder;
  std::unique_ptr<ShardedParameters>
      parameters;  // after the decoder: it ends what is under way before that goes
};

// The global batch is divided over the replicate and shard axes: each takes a run of sample indices, in micro-batches
// of its own, which the ranks along the other axes share. All ranks make the same number of micro-batches, some perhaps empty, because expert groups
// exchange tokens in each. Losses, gradients and loads are sums of what every rank divides by the global
// batch's counts, so every mesh computes the same mathematics. A lost rank makes the call under way and all
// later ones fail with the communicator's error, which names it.
class ParallelModel final : public runtime::Trainable {
 public:
  // Collective. Makes the model's part of this rank; its values are set afterwards (Initialize, LoadWeights, or
  // from a checkpoint). Frees nothing of `device`, which outlives it.
  static absl::StatusOr<std::unique_ptr<ParallelModel>> Create(
      const runtime::ModelConfig& config, runtime::Device& device, const ParallelOptions& options,
      const Mesh& mesh, std::shared_ptr<comm::Communicator> world, std::unique_ptr<BatchSource> source);

  const Mesh& mesh() const { return groups_.mesh; }
  // This rank's stages, ascending; without a pipeline one, the whole model. Parameters' tensors are defined where they
  // are not split, or while a group is used.
  std::vector<ModelPart>& parts() { return parts_; }
  // Of the first of them.
  runtime::Decoder& decoder() { return *parts_.front().decoder; }
  ShardedParameters& parameters() { return *parts_.front().parameters; }

  const PipelinePlan& plan() const { return *plan_; }
  pipeline::Executor& executor() { return *executor_; }
  // ComputeGradients adds what the pipeline did on this rank; null: nowhere.
  void TracePipeline(pipeline::ExecutorTrace* trace) { trace_ = trace; }

  // Every rank keeps its pieces of what one rank alone would begin with.
  void Initialize(uint64_t seed);
  // The same from the weights of a Hugging Face folder. Every rank decides for itself: ranks that train together must
  // agree on the result.
  absl::Status LoadWeights(const std::string& folder);

  int rank() const override { return groups_.world->rank(); }
  int world() const override { return groups_.world->size(); }
  absl::StatusOr<runtime::StepResult> ComputeGradients(int64_t step) override;
  absl::StatusOr<double> GradientNorm() override;
  const std::vector<runtime::OptimizerSlice>& slices() override { return slices_; }
  absl::Status AfterStep(const runtime::StepResult& result) override;
  absl::StatusOr<Evaluation> Evaluate(int64_t sequences) override;
  const std::vector<runtime::StateEntry>& state() override { return state_; }
  absl::Status StateRestored() override;
  absl::Status Barrier() override;
  absl::StatusOr<int64_t> AgreeMax(int64_t value) override;
  absl::StatusOr<std::vector<std::string>> GatherStrings(const std::string& mine) override;

 private:
  ParallelModel(const runtime::ModelConfig& config, MeshCommunicators groups, const ParallelOptions& options,
                runtime::Device& device, std::unique_ptr<BatchSource> source);
  absl::Status MakeParts(const runtime::ModelConfig& config, int64_t memory);
  void ListState();
  // The schedule of so many micro-batches a step; 0: any, for where the stages are.
  absl::Status MakePlan(const runtime::ModelConfig& config, int micro_batches);
  // What the stages of all ranks did, [stage][micro-batch] of `shards`, added up.
  absl::StatusOr<runtime::LossSums> SumParts(const std::vector<std::vector<runtime::LossSums>>& stages,
                                             const VirtualShards& shards);
  absl::Status FinishParts();

  MeshCommunicators groups_;
  const ParallelOptions options_;
  runtime::Device& device_;
  const VirtualShards shards_;  // of the global batch
  BatchFeed feed_;
  std::shared_ptr<runtime::TensorGroup> tensor_;
  std::vector<ModelPart> parts_;
  std::unique_ptr<const PipelinePlan> plan_;
  std::unique_ptr<TiedEmbedding> tied_;  // null: nothing of two stages is tied here
  std::unique_ptr<pipeline::Executor> executor_;
  pipeline::ExecutorTrace* trace_ = nullptr;
  std::vector<runtime::OptimizerSlice> slices_;  // of all parts
  std::vector<runtime::StateEntry> state_;
};

}  // namespace cohort::parallel
