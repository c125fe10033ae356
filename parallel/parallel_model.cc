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
#include "parallel/pipeline/balance.h"
#include "parallel/pipeline/schedules/schedules.h"
#include "parallel/tensor/tensor_communicator.h"
#include "runtime/checkpoint/hf_folder.h"
#include "runtime/ops/ops.h"

namespace cohort::parallel {

using runtime::LossScale;
using runtime::LossSums;
using runtime::Tensor;

namespace {

int64_t PredictedTokens(const runtime::TokenBatch& batch) {
  const std::vector<double> targets = ToHost(batch.targets);
  return std::count_if(targets.begin(), targets.end(), [](double target) { return target >= 0; });
}

// A micro-batch of no sequences, with which a rank that has run out keeps its expert group company.
Samples NoSamples(runtime::Device& device) {
  Samples none;
  none.tokens.tokens = none.tokens.targets = none.tokens.positions =
      Tensor::Empty(device, {0}, DataType::kI32);
  none.tokens.host_offsets = {0};
  none.tokens.offsets = Tensor::FromHost(device, {1}, absl::MakeConstSpan(none.tokens.host_offsets));
  return none;
}

int SparseBlocks(const runtime::ModelConfig& config, int begin, int end) {
  int sparse = 0;
  for (int layer = begin; layer < end; ++layer) sparse += config.IsSparse(layer) ? 1 : 0;
  return sparse;
}

// The first block of each stage, and at the end the number of blocks: by the parameters that a token meets, to which
// the time of a block is about proportional.
absl::StatusOr<std::vector<int>> StageBlocks(const runtime::ModelConfig& config, int stages) {
  const auto width = static_cast<double>(config.hidden_size), head_dim = static_cast<double>(config.head_dim);
  const double attention =
      width * head_dim * static_cast<double>(2 * config.num_attention_heads + 2 * config.num_key_value_heads);
  std::vector<double> blocks;
  for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
    const int64_t hidden = config.IsSparse(layer)
                               ? config.moe_intermediate_size * config.num_experts_per_tok +
                                     config.shared_expert_intermediate_size
                               : config.intermediate_size;
    blocks.push_back(attention + 3 * width * static_cast<double>(hidden));
  }
  COHORT_ASSIGN_OR_RETURN(
      const pipeline::StageSplit split,
      pipeline::BalanceStages(blocks, 0, width * static_cast<double>(config.vocab_size), stages));
  return split.first_block;
}

// On one rank nothing is gained by keeping the activations of several micro-batches: each is done with before the next.
pipeline::Schedule OneAfterTheOther(pipeline::Schedule schedule) {
  std::vector<pipeline::Action>& actions = schedule.actions[0];
  std::stable_sort(actions.begin(), actions.end(),
                   [](const auto& a, const auto& b) { return a.micro_batch < b.micro_batch; });
  return schedule;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ParallelModel>> ParallelModel::Create(
    const runtime::ModelConfig& config, runtime::Device& device, const ParallelOptions& options,
    const Mesh& mesh, std::shared_ptr<comm::Communicator> world, std::unique_ptr<BatchSource> source) {
  COHORT_RETURN_IF_ERROR(CheckFit(config, options, mesh));
  COHORT_ASSIGN_OR_RETURN(const int64_t memory, ShareOfFreeMemory(device, *world));
  COHORT_ASSIGN_OR_RETURN(MeshCommunicators groups, Connect(mesh, std::move(world)));
  std::unique_ptr<ParallelModel> model(
      new ParallelModel(std::move(groups), options, device, std::move(source)));
  COHORT_RETURN_IF_ERROR(model->MakeParts(config, memory));
  model->ListState();
  return model;
}

ParallelModel::ParallelModel(MeshCommunicators groups, const ParallelOptions& options,
                             runtime::Device& device, std::unique_ptr<BatchSource> source)
    : groups_(std::move(groups)),
      options_(options),
      source_(std::move(source)),
      device_(device),
      batch_parts_(groups_, options_.context, options_.split_batch, device),
      tensor_(std::make_shared<TensorCommunicator>(groups_.tensor)) {}

absl::Status ParallelModel::MakeParts(const runtime::ModelConfig& config, int64_t memory) {
  // A schedule of one micro-batch places the stages like one of many.
  COHORT_ASSIGN_OR_RETURN(const pipeline::Executor* executor, ExecutorOf(1));
  const pipeline::Schedule& schedule = executor->schedule();
  COHORT_ASSIGN_OR_RETURN(const std::vector<int> first_block, StageBlocks(config, schedule.stages()));
  const std::vector<int> mine = schedule.StagesOf(groups_.pipeline->rank());
  const auto experts = std::make_shared<moe::ExpertGroup>(groups_.expert);
  for (const int stage : mine) {
    const runtime::DecoderOptions decoder = {.compute = options_.compute,
                                             .trainable = true,
                                             .recompute = options_.recompute,
                                             .allocate = false,
                                             .experts = moe::MakeMoeFactory(experts),
                                             .part = {.first_block = first_block[stage],
                                                      .last_block = first_block[stage + 1],
                                                      .embedding = stage == 0,
                                                      .head = stage + 1 == schedule.stages()},
                                             .tensor = tensor_};
    ModelPart part{.stage = stage, .decoder = nullptr, .parameters = nullptr};
    COHORT_ASSIGN_OR_RETURN(part.decoder, runtime::Decoder::Create(config, device_, decoder));
    COHORT_ASSIGN_OR_RETURN(part.parameters,
                            ShardedParameters::Create(*part.decoder, options_.sharding, groups_,
                                                      memory / static_cast<int64_t>(mine.size())));
    parts_.push_back(std::move(part));
  }
  executor_ = nullptr;  // it knows no stage yet
  return absl::OkStatus();
}

absl::StatusOr<pipeline::Executor*> ParallelModel::ExecutorOf(int micro_batches) {
  if (executor_ != nullptr && executor_->schedule().micro_batches == micro_batches) return executor_.get();
  const int ranks = groups_.pipeline->size();
  COHORT_ASSIGN_OR_RETURN(
      pipeline::Schedule schedule,
      pipeline::MakeSchedule(
          ranks == 1 && options_.stages_per_rank == 1 ? "gpipe" : options_.schedule,
          {.ranks = ranks, .chunks = options_.stages_per_rank, .micro_batches = micro_batches}));
  if (ranks == 1) schedule = OneAfterTheOther(std::move(schedule));
  std::map<int, runtime::Decoder*> stages;
  for (const ModelPart& part : parts_) stages[part.stage] = part.decoder.get();
  executor_ = std::make_unique<pipeline::Executor>(std::move(schedule), groups_.pipeline, std::move(stages),
                                                   *tensor_);
  return executor_.get();
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
    if (entry.slice >= 0) total[entry.parameter->placement] += size(entry);
  }
  for (runtime::StateEntry& entry : state_) {
    const ReplicaGroup& group = parameters().GroupOf(entry.parameter->placement);
    if (entry.slice < 0) {  // a buffer is whole on all replicas, however their optimizer's state is split
      entry.writes = group.rank == 0;
      continue;
    }
    int64_t& begin = before[entry.parameter->placement];
    const int64_t copies = group.copies();
    const int64_t writer =
        std::min(begin * copies / std::max<int64_t>(total[entry.parameter->placement], 1), copies - 1);
    begin += size(entry);
    entry.writes = writer == group.copy();
  }
}

ParallelModel::Share ParallelModel::ShareOf(int64_t sequences) const {
  const int64_t ranks = groups_.mesh.Size(kBatchAxes),
                rank = groups_.mesh.Coordinate(kBatchAxes, groups_.world->rank());
  const int64_t largest = (sequences + ranks - 1) / ranks;
  const int64_t micro_batch = std::max<int64_t>(1, options_.micro_batch > 0 ? options_.micro_batch : largest);
  return {.begin = sequences * rank / ranks,
          .end = sequences * (rank + 1) / ranks,
          .rounds = (largest + micro_batch - 1) / micro_batch,
          .micro_batch = micro_batch};
}

absl::StatusOr<std::vector<Samples>> ParallelModel::Fetch(const Share& share, int64_t step, bool held_out) {
  std::vector<Samples> rounds;
  absl::Status status;
  for (int64_t round = 0; round < share.rounds && status.ok(); ++round) {
    const int64_t begin = std::min(share.end, share.begin + round * share.micro_batch);
    const int64_t count = std::min(share.end - begin, share.micro_batch);
    if (count == 0) {
      rounds.push_back(NoSamples(device_));
      continue;
    }
    auto samples = held_out ? source_->HeldOut(begin, count) : source_->Training(step, begin, count);
    status = samples.status();
    if (samples.ok()) rounds.push_back(*std::move(samples));
  }
  COHORT_RETURN_IF_ERROR(AgreeOnSuccess(*groups_.world, status, "reading its part of the batch"));
  return rounds;
}

absl::StatusOr<runtime::StepResult> ParallelModel::ComputeGradients(int64_t step) {
  const Share share = ShareOf(options_.global_batch);
  COHORT_ASSIGN_OR_RETURN(std::vector<Samples> rounds, Fetch(share, step, /*held_out=*/false));
  std::vector<runtime::TokenBatch> batches;
  for (const Samples& samples : rounds) {
    COHORT_ASSIGN_OR_RETURN(runtime::TokenBatch batch, batch_parts_.Of(samples.tokens));
    batches.push_back(std::move(batch));
  }
  int64_t predicted = 0;  // on one of the ranks that share them
  if (groups_.pipeline->rank() == 0 && batch_parts_.counts()) {
    for (const Samples& samples : rounds) predicted += PredictedTokens(samples.tokens);
  }
  COHORT_RETURN_IF_ERROR(SumOverRanks(*groups_.world, absl::MakeSpan(&predicted, 1)));
  const LossScale scale = {.tokens = static_cast<double>(std::max<int64_t>(predicted, 1)),
                           .sequences = static_cast<double>(options_.global_batch)};

  COHORT_ASSIGN_OR_RETURN(pipeline::Executor * executor, ExecutorOf(static_cast<int>(batches.size())));
  for (ModelPart& part : parts_) part.parameters->BeginStep(static_cast<int>(batches.size()));
  std::vector<LossSums> stages;
  absl::Status status = executor->Run(batches, scale, stages);
  status.Update(FinishParts());
  COHORT_RETURN_IF_ERROR(status);
  runtime::StepResult result;
  COHORT_RETURN_IF_ERROR(SumStages(stages, result.sums));
  return result;
}

absl::Status ParallelModel::FinishParts() {
  absl::Status first;
  for (ModelPart& part : parts_) first.Update(part.parameters->Finish());
  return first;
}

absl::Status ParallelModel::SumStages(absl::Span<const LossSums> stages, LossSums& total) {
  const runtime::ModelConfig& config = decoder().config();
  total.expert_load.assign(
      static_cast<size_t>(SparseBlocks(config, 0, static_cast<int>(config.num_hidden_layers))),
      std::vector<int64_t>(static_cast<size_t>(config.num_experts), 0));
  for (const ModelPart& part : parts_) {
    const LossSums& stage = stages[static_cast<size_t>(part.stage)];
    total.loss += stage.loss;
    total.aux_loss += stage.aux_loss;
    total.tokens += stage.tokens;
    total.dropped += stage.dropped;
    auto row = static_cast<size_t>(SparseBlocks(config, 0, part.decoder->part().first_block));
    for (const std::vector<int64_t>& load : stage.expert_load) {
      std::vector<int64_t>& sum = total.expert_load[row++];
      std::transform(load.begin(), load.end(), sum.begin(), sum.begin(), std::plus<>());
    }
  }
  return SumOverRanks(*groups_.world, total);
}

absl::StatusOr<double> ParallelModel::GradientNorm() {
  // Each element counts on one of the ranks that hold it; the sum then has the same bits on all ranks.
  const Tensor squares = Tensor::Zeros(device_, {1}, DataType::kF64);
  for (const ModelPart& part : parts_) part.parameters->AddSquares(squares);
  double total = ToHost(squares)[0];
  COHORT_RETURN_IF_ERROR(SumOverRanks(*groups_.world, absl::MakeSpan(&total, 1)));
  return std::sqrt(total);
}

absl::Status ParallelModel::StateRestored() {
  for (ModelPart& part : parts_) COHORT_RETURN_IF_ERROR(part.parameters->Publish());
  return absl::OkStatus();
}

absl::Status ParallelModel::AfterStep(const runtime::StepResult& result) {
  const runtime::ModelConfig& config = decoder().config();
  for (ModelPart& part : parts_) {
    COHORT_RETURN_IF_ERROR(part.parameters->Publish());
    const auto load = result.sums.expert_load.begin();
    const runtime::DecoderPart& blocks = part.decoder->part();
    part.decoder->UpdateBalance({load + SparseBlocks(config, 0, blocks.first_block),
                                 load + SparseBlocks(config, 0, blocks.last_block)});
  }
  return absl::OkStatus();
}

absl::StatusOr<runtime::Trainable::Evaluation> ParallelModel::Evaluate(int64_t sequences) {
  const int64_t all = source_->held_out();
  const int64_t used = sequences > 0 ? std::min(sequences, all) : all;
  if (used == 0)
    return absl::FailedPreconditionError("there is no held-out data to evaluate on (data.validation)");
  // One micro-batch after another, so that the memory does not depend on how much is held out.
  const Share share = ShareOf(used);
  LossSums sums;
  int64_t bytes = 0;
  for (int64_t round = 0; round < share.rounds; ++round) {
    const int64_t begin = std::min(share.end, share.begin + round * share.micro_batch);
    const Share part = {.begin = begin,
                        .end = std::min(share.end, begin + share.micro_batch),
                        .rounds = 1,
                        .micro_batch = share.micro_batch};
    COHORT_ASSIGN_OR_RETURN(const std::vector<Samples> samples, Fetch(part, 0, /*held_out=*/true));
    COHORT_ASSIGN_OR_RETURN(const runtime::TokenBatch batch, batch_parts_.Of(samples[0].tokens));
    COHORT_ASSIGN_OR_RETURN(pipeline::Executor * executor, ExecutorOf(1));
    for (ModelPart& model : parts_) model.parameters->BeginEvaluation();
    std::vector<LossSums> stages;
    absl::Status status = executor->Evaluate(batch, stages);
    status.Update(FinishParts());
    COHORT_RETURN_IF_ERROR(status);
    for (const LossSums& stage : stages) {
      sums.loss += stage.loss;
      sums.tokens += stage.tokens;
    }
    if (groups_.pipeline->rank() == 0 && batch_parts_.counts()) bytes += samples[0].bytes;
  }
  COHORT_RETURN_IF_ERROR(SumOverRanks(*groups_.world, sums));
  COHORT_RETURN_IF_ERROR(SumOverRanks(*groups_.world, absl::MakeSpan(&bytes, 1)));
  Evaluation evaluation;
  evaluation.tokens = sums.tokens;
  evaluation.loss = sums.tokens == 0 ? 0 : sums.loss / static_cast<double>(sums.tokens);
  evaluation.bits_per_byte = bytes == 0 ? 0 : sums.loss / std::log(2.0) / static_cast<double>(bytes);
  return evaluation;
}

absl::Status ParallelModel::Barrier() { return groups_.world->Barrier().Wait(); }

absl::StatusOr<int64_t> ParallelModel::AgreeMax(int64_t value) {
  COHORT_RETURN_IF_ERROR(
      groups_.world->AllReduce(&value, &value, 1, DataType::kI64, comm::ReduceOp::kMax).Wait());
  return value;
}

absl::StatusOr<std::vector<std::string>> ParallelModel::GatherStrings(const std::string& mine) {
  return parallel::GatherStrings(*groups_.world, mine);
}

}  // namespace cohort::parallel
