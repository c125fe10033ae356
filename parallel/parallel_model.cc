#include "parallel/parallel_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/global_sums.h"
#include "parallel/memory_share.h"
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
  model->strategies_ = MakeStrategies(model->groups_);
  runtime::DecoderOptions decoder = {.compute = options.compute,
                                     .trainable = true,
                                     .recompute = options.recompute,
                                     .memory_limit = memory,
                                     .experts = {}};
  for (const auto& strategy : model->strategies_) strategy->Configure(decoder);
  COHORT_ASSIGN_OR_RETURN(model->decoder_, runtime::Decoder::Create(config, device, decoder));
  model->decoder_->SetHooks(
      {.before_forward = {},
       .after_forward = {},
       .before_backward = {},
       .after_backward = [raw = model.get()](int group) { return raw->GroupReady(group); }});
  model->ListParameters();
  return model;
}

size_t ParallelModel::StrategyIndex(runtime::Placement placement) const {
  for (size_t i = 0; i < strategies_.size(); ++i) {
    if (strategies_[i]->placement() == placement) return i;
  }
  COHORT_CHECK(false, "no strategy for placement %d", static_cast<int>(placement));
}

void ParallelModel::ListParameters() {
  // Every rank of a strategy's replicas could write a parameter; each writes a run of about equal size.
  std::vector<int64_t> total(strategies_.size(), 0), before(strategies_.size(), 0);
  for (runtime::ParameterGroup& group : decoder_->groups()) {
    for (const auto& parameter : group.parameters()) {
      total[StrategyIndex(parameter->placement)] += parameter->value.size();
    }
  }
  const auto add = [&](runtime::Parameter& parameter, int slice, int64_t offset) {
    const size_t s = StrategyIndex(parameter.placement);
    const int64_t writer =
        std::min<int64_t>(before[s] * strategies_[s]->replicas() / std::max<int64_t>(total[s], 1),
                          strategies_[s]->replicas() - 1);
    before[s] += parameter.value.size();
    state_.push_back({parameter.name, &parameter, slice, offset, writer == strategies_[s]->replica()});
  };
  for (runtime::ParameterGroup& group : decoder_->groups()) {
    for (const runtime::ParameterBucket& bucket : group.buckets()) {
      const bool separate = bucket.value.raw() != bucket.master.raw();
      int64_t offset = 0;
      for (runtime::Parameter* parameter : bucket.parameters) {
        add(*parameter, static_cast<int>(slices_.size()), offset);
        offset += parameter->value.size();
      }
      slices_.push_back({.name = absl::StrCat(group.name(), "/", StrategyOf(bucket.placement).name(), "/",
                                              bucket.decay ? "decay" : "no_decay"),
                         .master = bucket.master,
                         .grad = bucket.grad,
                         .value = separate ? bucket.value : Tensor(),
                         .decay = bucket.decay});
    }
    for (const auto& parameter : group.parameters()) {
      if (parameter->buffer) add(*parameter, -1, 0);
    }
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

absl::Status ParallelModel::GroupReady(int group) {
  if (!last_round_) return absl::OkStatus();
  for (const runtime::ParameterBucket& bucket : decoder_->groups()[group].buckets()) {
    StrategyOf(bucket.placement).GradientsReady(bucket);
  }
  return absl::OkStatus();
}

absl::StatusOr<runtime::StepResult> ParallelModel::ComputeGradients(int64_t step) {
  const Share share = ShareOf(options_.global_batch);
  COHORT_ASSIGN_OR_RETURN(std::vector<Samples> rounds, Fetch(share, step, /*held_out=*/false));
  int64_t predicted = 0;
  for (const Samples& samples : rounds) predicted += PredictedTokens(samples.tokens);
  COHORT_RETURN_IF_ERROR(SumOverRanks(*groups_.world, absl::MakeSpan(&predicted, 1)));
  const LossScale scale = {.tokens = static_cast<double>(std::max<int64_t>(predicted, 1)),
                           .sequences = static_cast<double>(options_.global_batch)};

  for (runtime::ParameterGroup& group : decoder_->groups()) group.ZeroGrad();
  runtime::StepResult result;
  absl::Status status;
  for (size_t round = 0; round < rounds.size() && status.ok(); ++round) {
    last_round_ = round + 1 == rounds.size();
    auto sums = decoder_->ForwardBackward(rounds[round].tokens, scale);
    status = sums.status();
    if (sums.ok()) AddSums(*sums, result.sums);
  }
  for (const auto& strategy : strategies_) status.Update(strategy->FinishGradients());
  COHORT_RETURN_IF_ERROR(status);
  COHORT_RETURN_IF_ERROR(SumOverRanks(*groups_.world, result.sums));
  return result;
}

absl::StatusOr<double> ParallelModel::GradientNorm() {
  // Each distinct parameter counts on one of its replicas; the sum then has the same bits on all ranks.
  runtime::Device& device = decoder_->device();
  const Tensor squares = Tensor::Zeros(device, {1}, DataType::kF64);
  for (runtime::ParameterGroup& group : decoder_->groups()) {
    for (const runtime::ParameterBucket& bucket : group.buckets()) {
      if (StrategyOf(bucket.placement).replica() == 0) device.ops().SumSquares(bucket.grad, squares);
    }
  }
  double total = ToHost(squares)[0];
  COHORT_RETURN_IF_ERROR(SumOverRanks(*groups_.world, absl::MakeSpan(&total, 1)));
  return std::sqrt(total);
}

absl::Status ParallelModel::AfterStep(const runtime::StepResult& result) {
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
    COHORT_ASSIGN_OR_RETURN(const LossSums round_sums, decoder_->Evaluate(samples[0].tokens));
    AddSums(round_sums, sums);
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
