#include "parallel/parallel_model.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "moe/moe_layer.h"
#include "parallel/fit.h"
#include "parallel/global_sums.h"
#include "parallel/memory_share.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/schedule_file.h"
#include "parallel/sequence/hybrid_costs.h"
#include "parallel/sequence/policy.h"
#include "parallel/stage_sums.h"
#include "parallel/tensor/tensor_communicator.h"
#include "runtime/checkpoint/hf_folder.h"
#include "runtime/metrics/waited.h"
#include "runtime/ops/exact_squares.h"
#include "runtime/ops/fixed_tiles.h"
#include "runtime/ops/ops.h"

namespace cohort::parallel {

using runtime::LossScale;
using runtime::LossSums;
using runtime::Tensor;

namespace {

FeedOptions FeedOptionsOf(const runtime::ModelConfig& config, const ParallelOptions& options,
                          const MeshCommunicators& groups) {
  FeedOptions feed = {.global_batch = options.global_batch,
                      .micro_batch = options.micro_batch,
                      .shards = std::nullopt,
                      .hybrid = options.hybrid,
                      .split_batch = options.split_batch};
  if (options.deterministic) {
    feed.shards = VirtualShards::Of(options.global_batch, options.virtual_shards, options.micro_batch);
  }
  if (!options.hybrid) return feed;
  const Mesh& mesh = groups.mesh;
  feed.costs = CostsOf(config, options.compute,
                       {.flops_per_byte = policy::kFlopsPerByte,
                        .near_flops_per_byte = policy::kNearFlopsPerByte,
                        .host_ranks = mesh.NeighboursOnAHost(kBatchAxes)});
  feed.in_step = options.sharding.parameters != Level::None() ||
                 options.sharding.gradients != Level::None() || mesh.Size(Axis::kExpert) > 1 ||
                 mesh.Size(Axis::kPipeline) > 1;
  return feed;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ParallelModel>> ParallelModel::Create(
    const runtime::ModelConfig& config, runtime::Device& device, const ParallelOptions& options,
    const Mesh& mesh, std::shared_ptr<comm::Communicator> world, std::unique_ptr<BatchSource> source) {
  COHORT_RETURN_IF_ERROR(CheckFit(config, options, mesh));
  if (options.deterministic && device.state_dtype() != DataType::kF32) {
    return absl::InvalidArgumentError(
        absl::StrCat("train.deterministic needs optimizer state in f32, and the ", device.name(),
                     " device has it in ", Name(device.state_dtype())));
  }
  COHORT_ASSIGN_OR_RETURN(const int64_t memory, ShareOfFreeMemory(device, *world));
  COHORT_ASSIGN_OR_RETURN(MeshCommunicators groups, Connect(mesh, std::move(world), device));
  if (options.hybrid) COHORT_RETURN_IF_ERROR(ConnectHybrid(groups));
  std::unique_ptr<ParallelModel> model(
      new ParallelModel(config, std::move(groups), options, device, std::move(source)));
  COHORT_RETURN_IF_ERROR(model->MakeParts(config, memory));
  model->ListState();
  return model;
}

ParallelModel::ParallelModel(const runtime::ModelConfig& config, MeshCommunicators groups,
                             const ParallelOptions& options, runtime::Device& device,
                             std::unique_ptr<BatchSource> source)
    : groups_(std::move(groups)),
      options_(options),
      device_(device),
      shards_(VirtualShards::Of(options.global_batch, options.virtual_shards, options.micro_batch)),
      feed_(groups_, FeedOptionsOf(config, options, groups_), options.context, std::move(source), device),
      tensor_(std::make_shared<TensorCommunicator>(groups_.over_device.tensor)) {}

absl::Status ParallelModel::MakeParts(const runtime::ModelConfig& config, int64_t memory) {
  COHORT_RETURN_IF_ERROR(MakePlan(config, feed_.micro_batches()));
  const std::vector<int> mine = plan_->StagesOf(groups_.pipeline->rank());
  const auto experts = std::make_shared<moe::ExpertGroup>(groups_.expert, /*apart=*/options_.deterministic,
                                                          groups_.over_device.expert);
  for (const int stage : mine) {
    const runtime::DecoderOptions decoder = {.compute = options_.compute,
                                             .trainable = true,
                                             .recompute = options_.recompute,
                                             .allocate = false,
                                             .experts = moe::MakeMoeFactory(experts),
                                             .part = plan_->PartOf(stage, options_.deterministic),
                                             .tensor = tensor_};
    ModelPart part{.stage = stage, .decoder = nullptr, .parameters = nullptr};
    COHORT_ASSIGN_OR_RETURN(part.decoder, runtime::Decoder::Create(config, device_, decoder));
    std::vector<pipeline::Action> actions;
    for (const pipeline::Action& action : plan_->schedule().actions[groups_.pipeline->rank()]) {
      if (action.stage == stage) actions.push_back(action);
    }
    COHORT_ASSIGN_OR_RETURN(part.parameters,
                            ShardedParameters::Create(*part.decoder, options_.sharding, groups_,
                                                      memory / static_cast<int64_t>(mine.size()),
                                                      options_.deterministic ? &shards_ : nullptr, actions));
    parts_.push_back(std::move(part));
  }
  COHORT_ASSIGN_OR_RETURN(tied_,
                          TiedEmbedding::Connect(*plan_, options_.deterministic, *groups_.pipeline, device_));
  std::map<int, runtime::Decoder*> stages;
  for (const ModelPart& part : parts_) stages[part.stage] = part.decoder.get();
  executor_ = std::make_unique<pipeline::Executor>(plan_->rank_of(), groups_.over_device.pipeline,
                                                   std::move(stages), *tensor_);
  return absl::OkStatus();
}

absl::Status ParallelModel::MakePlan(const runtime::ModelConfig& config, int micro_batches) {
  if (plan_ != nullptr && plan_->schedule().micro_batches == micro_batches) return absl::OkStatus();
  absl::StatusOr<PipelinePlan> plan =
      PipelinePlan::Create(config, options_.schedule, groups_.pipeline->size(), options_.stages_per_rank,
                           micro_batches, options_.block_costs);
  // Those of one virtual shard are added to one tensor. Generators ascend; a file need not.
  if (plan.ok() && options_.deterministic && shards_.micro_batches_per_shard > 1 &&
      !pipeline::WeightGradientsAscend(plan->schedule())) {
    plan = absl::InvalidArgumentError(absl::StrCat(
        "train.deterministic adds up the ", shards_.micro_batches_per_shard,
        " micro-batches of a virtual shard in ascending order, and in ", options_.schedule,
        " the backwards (B or W) of a stage do not ascend: change the file, or give train.micro_batch the ",
        (shards_.samples + shards_.shards - 1) / shards_.shards, " sequences of a virtual shard"));
  }
  const bool first = plan_ == nullptr;
  if (first) COHORT_RETURN_IF_ERROR(AgreeOnSuccess(*groups_.world, plan.status(), "planning its pipeline"));
  COHORT_RETURN_IF_ERROR(plan.status());
  plan_ = std::make_unique<const PipelinePlan>(*std::move(plan));
  // Ranks that follow different lists would wait for each other for ever. A file may differ between hosts.
  if (!first || !plan_->from_file()) return absl::OkStatus();
  const std::string mine = pipeline::ScheduleText(plan_->schedule());
  COHORT_ASSIGN_OR_RETURN(const std::vector<std::string> all, GatherStrings(mine));
  const auto other = std::find_if(all.begin(), all.end(), [&](const auto& text) { return text != all[0]; });
  if (other == all.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the pipeline schedule ", options_.schedule, " of rank ",
                                                 other - all.begin(), " is not that of rank 0"));
}

void ParallelModel::Initialize(uint64_t seed) {
  for (ModelPart& part : parts_) {
    const absl::Status status = part.parameters->SetWhole([&](runtime::ParameterGroup& group) {
      group.Initialize(seed);
      return absl::OkStatus();
    });
    COHORT_CHECK(status.ok(), "values that are drawn cannot fail");
  }
}

absl::Status ParallelModel::LoadWeights(const std::string& folder) {
  COHORT_ASSIGN_OR_RETURN(const runtime::HfFolder weights, runtime::HfFolder::Open(folder));
  const auto named = [](runtime::ParameterGroup& group, std::vector<runtime::NamedParameter>& into) {
    for (const auto& parameter : group.parameters()) into.push_back({parameter->name, parameter.get()});
  };
  std::vector<runtime::NamedParameter> all;
  std::vector<runtime::Elsewhere> outside;  // of each part
  for (ModelPart& part : parts_) {
    for (runtime::ParameterGroup& group : part.decoder->groups()) named(group, all);
    outside.push_back(runtime::OutsideOf(part.decoder->part(), part.decoder->config()));
  }
  COHORT_RETURN_IF_ERROR(CheckParameters(weights, decoder().config(), all, [&](const std::string& name) {
    return std::all_of(outside.begin(), outside.end(),
                       [&](const auto& is_outside) { return is_outside(name); });
  }));
  for (ModelPart& part : parts_) {
    COHORT_RETURN_IF_ERROR(part.parameters->SetWhole([&](runtime::ParameterGroup& group) {
      std::vector<runtime::NamedParameter> some;
      named(group, some);
      return CopyParameters(weights, some);
    }));
  }
  return absl::OkStatus();
}

void ParallelModel::ListState() {
  // Every rank that holds the same optimizer state could write it; each writes a run of about equal size.
  absl::flat_hash_map<runtime::Placement, int64_t> total, before;
  const auto size = [](const runtime::StateEntry& entry) { return entry.piece.size(); };
  for (ModelPart& part : parts_) {
    const auto first_slice = static_cast<int>(slices_.size());
    for (const runtime::OptimizerSlice& slice : part.parameters->slices()) slices_.push_back(slice);
    for (const OwnedRun& run : part.parameters->runs()) {
      state_.push_back({run.parameter->piece().Range(run.first, run.first + run.count), run.parameter,
                        first_slice + run.slice, run.offset, false});
    }
    for (runtime::ParameterGroup& group : part.decoder->groups()) {
      for (const auto& parameter : group.parameters()) {
        if (parameter->buffer) state_.push_back({parameter->piece(), parameter.get(), -1, 0, false});
      }
    }
  }
  for (const runtime::StateEntry& entry : state_) {
    if (entry.slice >= 0 && !entry.parameter->copy) total[entry.parameter->placement] += size(entry);
  }
  for (runtime::StateEntry& entry : state_) {
    const ReplicaGroup& group = parameters().GroupOf(entry.parameter->placement);
    if (entry.slice < 0) {  // a buffer is whole on all replicas, however their optimizer's state is split
      entry.writes = group.rank == 0;
      continue;
    }
    if (entry.parameter->copy) continue;
    int64_t& begin = before[entry.parameter->placement];
    const int64_t copies = group.copies();
    const int64_t writer =
        std::min(begin * copies / std::max<int64_t>(total[entry.parameter->placement], 1), copies - 1);
    begin += size(entry);
    entry.writes = writer == group.copy();
  }
}

absl::StatusOr<runtime::StepResult> ParallelModel::ComputeGradients(int64_t step) {
  const runtime::FixedTiles fixed(options_.deterministic);
  COHORT_ASSIGN_OR_RETURN(std::vector<MicroBatch> micro_batches, feed_.Training(step));
  std::vector<runtime::TokenBatch> batches;
  int64_t predicted = 0;
  for (MicroBatch& micro_batch : micro_batches) {
    predicted += micro_batch.predicted;
    batches.push_back(std::move(micro_batch.tokens));
  }
  COHORT_RETURN_IF_ERROR(SumOverRanks(*groups_.world, absl::MakeSpan(&predicted, 1)));
  const LossScale scale = {.tokens = static_cast<double>(std::max<int64_t>(predicted, 1)),
                           .sequences = static_cast<double>(options_.global_batch)};

  const auto count = static_cast<int>(batches.size());
  COHORT_RETURN_IF_ERROR(MakePlan(decoder().config(), count));
  for (ModelPart& part : parts_) part.parameters->BeginStep(count);
  std::vector<std::vector<LossSums>> stages;
  const auto enter = [&](const pipeline::Action& action) {
    for (ModelPart& part : parts_) {
      if (part.stage == action.stage) part.parameters->EnterMicroBatch(action.micro_batch);
    }
  };
  absl::Status status =
      executor_->Run(plan_->schedule(), batches, scale, stages, trace_,
                     options_.deterministic ? enter : std::function<void(const pipeline::Action&)>());
  status.Update(FinishParts());
  COHORT_RETURN_IF_ERROR(status);
  if (tied_ != nullptr) {
    COHORT_RETURN_IF_ERROR(tied_->Sum(device_, parts_.front().parameters->EmbeddingGradient(/*copy=*/false),
                                      parts_.back().parameters->EmbeddingGradient(/*copy=*/true)));
  }
  runtime::StepResult result;
  COHORT_ASSIGN_OR_RETURN(result.sums, SumParts(stages, shards_));
  return result;
}

absl::Status ParallelModel::FinishParts() {
  absl::Status first;
  for (ModelPart& part : parts_) first.Update(part.parameters->Finish());
  return first;
}

absl::StatusOr<LossSums> ParallelModel::SumParts(const std::vector<std::vector<LossSums>>& stages,
                                                 const VirtualShards& shards) {
  std::vector<StageSums> parts;
  for (const ModelPart& part : parts_) {
    parts.push_back({part.decoder->part(), absl::MakeConstSpan(stages[static_cast<size_t>(part.stage)])});
  }
  return SumStages(decoder().config(), groups_, parts, options_.deterministic ? &shards : nullptr);
}

absl::StatusOr<double> ParallelModel::GradientNorm() {
  if (options_.deterministic) {
    runtime::ExactSquares squares;
    for (const ModelPart& part : parts_) part.parameters->AddSquares(squares);
    std::vector<int64_t> words = squares.Words();
    COHORT_RETURN_IF_ERROR(SumOverRanks(*groups_.world, absl::MakeSpan(words)));
    return std::sqrt(runtime::ExactSquares::Total(words));
  }
  // Each element counts on one of the ranks that hold it; the sum then has the same bits on all ranks.
  const Tensor squares = Tensor::Zeros(device_, {1}, DataType::kF64);
  for (const ModelPart& part : parts_) part.parameters->AddSquares(squares);
  double total = ToHost(squares)[0];
  COHORT_RETURN_IF_ERROR(SumOverRanks(*groups_.world, absl::MakeSpan(&total, 1)));
  return std::sqrt(total);
}

absl::Status ParallelModel::StateRestored() {
  absl::Status status;
  for (ModelPart& part : parts_) {
    part.parameters->StartPublish();
    status.Update(part.parameters->Finish());
  }
  return status;
}

absl::Status ParallelModel::AfterStep(const runtime::StepResult& result) {
  const runtime::ModelConfig& config = decoder().config();
  for (ModelPart& part : parts_) {
    part.parameters->StartPublish();
    const auto load = result.sums.expert_load.begin();
    const runtime::DecoderPart& blocks = part.decoder->part();
    part.decoder->UpdateBalance({load + SparseBlocks(config, 0, blocks.first_block),
                                 load + SparseBlocks(config, 0, blocks.last_block)});
  }
  return absl::OkStatus();
}

absl::StatusOr<runtime::Trainable::Evaluation> ParallelModel::Evaluate(int64_t sequences) {
  const int64_t all = feed_.held_out();
  const int64_t used = sequences > 0 ? std::min(sequences, all) : all;
  if (used == 0)
    return absl::FailedPreconditionError("there is no held-out data to evaluate on (data.validation)");
  const runtime::FixedTiles fixed(options_.deterministic);
  // One micro-batch after another, so that the memory does not depend on how much is held out.
  const VirtualShards shards = shards_.OfHeldOut(used);
  COHORT_ASSIGN_OR_RETURN(const std::vector<HybridMicroBatch> planned, feed_.PlanHeldOut(used));
  std::vector<std::vector<LossSums>> rounds(parts_.back().stage + 1);  // [stage][micro-batch]
  int64_t bytes = 0;
  for (const HybridMicroBatch& next : planned) {
    COHORT_ASSIGN_OR_RETURN(const MicroBatch batch, feed_.HeldOut(next));
    for (ModelPart& model : parts_) model.parameters->BeginEvaluation();
    std::vector<LossSums> stages;
    absl::Status status = executor_->Evaluate(batch.tokens, stages);
    status.Update(FinishParts());
    COHORT_RETURN_IF_ERROR(status);
    for (size_t stage = 0; stage < rounds.size(); ++stage) rounds[stage].push_back(std::move(stages[stage]));
    bytes += batch.bytes;
  }
  COHORT_ASSIGN_OR_RETURN(const LossSums sums, SumParts(rounds, shards));
  COHORT_RETURN_IF_ERROR(SumOverRanks(*groups_.world, absl::MakeSpan(&bytes, 1)));
  Evaluation evaluation;
  evaluation.tokens = sums.tokens;
  evaluation.loss = sums.tokens == 0 ? 0 : sums.loss / static_cast<double>(sums.tokens);
  evaluation.bits_per_byte = bytes == 0 ? 0 : sums.loss / std::log(2.0) / static_cast<double>(bytes);
  return evaluation;
}

absl::Status ParallelModel::Barrier() {
  const runtime::WaitScope waits("wait for all ranks");
  return groups_.world->Barrier().Wait();
}

absl::StatusOr<int64_t> ParallelModel::AgreeMax(int64_t value) {
  const runtime::WaitScope waits("wait for all ranks");
  COHORT_RETURN_IF_ERROR(
      groups_.world->AllReduce(&value, &value, 1, DataType::kI64, comm::ReduceOp::kMax).Wait());
  return value;
}

absl::StatusOr<std::vector<std::string>> ParallelModel::GatherStrings(const std::string& mine) {
  return parallel::GatherStrings(*groups_.world, mine);
}

}  // namespace cohort::parallel
