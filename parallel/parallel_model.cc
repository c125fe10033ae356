#include "parallel/parallel_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "moe/moe_layer.h"
#include "parallel/global_sums.h"
#include "parallel/memory_share.h"
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

absl::Status CheckOptions(const ParallelOptions& options) {
  if (options.global_batch < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("train.global_batch is ", options.global_batch, "; it must be 1 or more"));
  }
  if (options.micro_batch < 0) {
    return absl::InvalidArgumentError(absl::StrCat("train.micro_batch is ", options.micro_batch,
                                                   "; it must be 1 or more, or 0 for a rank's whole share"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ParallelModel>> ParallelModel::Create(
    const runtime::ModelConfig& config, runtime::Device& device, const ParallelOptions& options,
    const Mesh& mesh, std::shared_ptr<comm::Communicator> world, std::unique_ptr<BatchSource> source) {
  COHORT_RETURN_IF_ERROR(CheckOptions(options));
  COHORT_ASSIGN_OR_RETURN(const int64_t memory, ShareOfFreeMemory(device, *world));
  COHORT_ASSIGN_OR_RETURN(MeshCommunicators groups, Connect(mesh, std::move(world)));
  std::unique_ptr<ParallelModel> model(new ParallelModel(std::move(groups), options, std::move(source)));
  runtime::DecoderOptions decoder = {
      .compute = options.compute,
      .trainable = true,
      .recompute = options.recompute,
      .allocate = false,
      .experts = moe::MakeMoeFactory(std::make_shared<moe::ExpertGroup>(model->groups_.expert))};
  COHORT_ASSIGN_OR_RETURN(model->decoder_, runtime::Decoder::Create(config, device, decoder));
  COHORT_ASSIGN_OR_RETURN(model->parameters_, ShardedParameters::Create(*model->decoder_, options.sharding,
                                                                        model->groups_, memory));
  model->ListState();
  return model;
}

void ParallelModel::Initialize(uint64_t seed) {
  const absl::Status status = parameters_->SetWhole([&](runtime::ParameterGroup& group) {
    group.Initialize(seed);
    return absl::OkStatus();
  });
  COHORT_CHECK(status.ok(), "values that are drawn cannot fail");
}

absl::Status ParallelModel::LoadWeights(const std::string& folder) {
  COHORT_ASSIGN_OR_RETURN(const runtime::HfFolder weights, runtime::HfFolder::Open(folder));
  std::vector<runtime::NamedParameter> all;
  for (runtime::ParameterGroup& group : decoder_->groups()) {
    for (const auto& parameter : group.parameters()) all.push_back({parameter->name, parameter.get()});
  }
  COHORT_RETURN_IF_ERROR(CheckParameters(weights, decoder_->config(), all));
  return parameters_->SetWhole([&](runtime::ParameterGroup& group) {
    std::vector<runtime::NamedParameter> some;
    for (const auto& parameter : group.parameters()) some.push_back({parameter->name, parameter.get()});
    return CopyParameters(weights, some);
  });
}

void ParallelModel::ListState() {
  // Every rank that holds the same optimizer state could write it; each writes a run of about equal size.
  absl::flat_hash_map<runtime::Placement, int64_t> total, before;
  const auto size = [](const runtime::StateEntry& entry) { return entry.parameter->elements(); };
  for (const OwnedRun& run : parameters_->runs()) {
    state_.push_back({run.parameter->name, run.parameter, run.slice, run.offset, false});
  }
  for (runtime::ParameterGroup& group : decoder_->groups()) {
    for (const auto& parameter : group.parameters()) {
      if (parameter->buffer) state_.push_back({parameter->name, parameter.get(), -1, 0, false});
    }
  }
  for (const runtime::StateEntry& entry : state_) total[entry.parameter->placement] += size(entry);
  for (runtime::StateEntry& entry : state_) {
    const ReplicaGroup& group = parameters_->GroupOf(entry.parameter->placement);
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
      rounds.push_back(NoSamples(decoder_->device()));
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
  int64_t predicted = 0;
  for (const Samples& samples : rounds) predicted += PredictedTokens(samples.tokens);
  COHORT_RETURN_IF_ERROR(SumOverRanks(*groups_.world, absl::MakeSpan(&predicted, 1)));
  const LossScale scale = {.tokens = static_cast<double>(std::max<int64_t>(predicted, 1)),
                           .sequences = static_cast<double>(options_.global_batch)};

  parameters_->BeginStep(static_cast<int>(rounds.size()));
  runtime::StepResult result;
  absl::Status status;
  for (size_t round = 0; round < rounds.size() && status.ok(); ++round) {
    auto sums = decoder_->ForwardBackward(rounds[round].tokens, scale);
    status = sums.status();
    if (sums.ok()) AddSums(*sums, result.sums);
  }
  status.Update(parameters_->Finish());
  COHORT_RETURN_IF_ERROR(status);
  COHORT_RETURN_IF_ERROR(SumOverRanks(*groups_.world, result.sums));
  return result;
}

absl::StatusOr<double> ParallelModel::GradientNorm() {
  // Each element counts on one of the ranks that hold it; the sum then has the same bits on all ranks.
  const Tensor squares = Tensor::Zeros(decoder_->device(), {1}, DataType::kF64);
  parameters_->AddSquares(squares);
  double total = ToHost(squares)[0];
  COHORT_RETURN_IF_ERROR(SumOverRanks(*groups_.world, absl::MakeSpan(&total, 1)));
  return std::sqrt(total);
}

absl::Status ParallelModel::AfterStep(const runtime::StepResult& result) {
  COHORT_RETURN_IF_ERROR(parameters_->Publish());
  decoder_->UpdateBalance(result.sums.expert_load);
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
    parameters_->BeginEvaluation();
    const absl::StatusOr<LossSums> round_sums = decoder_->Evaluate(samples[0].tokens);
    absl::Status status = round_sums.status();
    status.Update(parameters_->Finish());
    COHORT_RETURN_IF_ERROR(status);
    AddSums(*round_sums, sums);
    bytes += samples[0].bytes;
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
