#include "parallel/batch_feed.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "comm/check.h"
#include "parallel/global_sums.h"

namespace cohort::parallel {
namespace {

using runtime::Tensor;
using runtime::TokenBatch;

Tensor Integers(const std::vector<int32_t>& values, runtime::Device& device) {
  return Tensor::FromHost(device, {static_cast<int64_t>(values.size())}, absl::MakeConstSpan(values));
}

int64_t PredictedTokens(const TokenBatch& batch) {
  const std::vector<double> targets = ToHost(batch.targets);
  return std::count_if(targets.begin(), targets.end(), [](double target) { return target >= 0; });
}

// Samples one after another. None: a micro-batch of no sequences, with which a rank keeps its groups company.
Samples Join(std::vector<Samples> parts, runtime::Device& device) {
  if (parts.size() == 1) return std::move(parts[0]);
  std::vector<int32_t> tokens, targets, positions, offsets = {0};
  Samples joined;
  for (const Samples& part : parts) {
    const auto append = [](const Tensor& from, std::vector<int32_t>& to) {
      const Tensor host = OnHost(from);
      to.insert(to.end(), host.data<int32_t>(), host.data<int32_t>() + host.size());
    };
    append(part.tokens.tokens, tokens);
    append(part.tokens.targets, targets);
    append(part.tokens.positions, positions);
    const int32_t begin = offsets.back();
    for (size_t s = 1; s < part.tokens.host_offsets.size(); ++s) {
      offsets.push_back(begin + part.tokens.host_offsets[s]);
    }
    joined.bytes += part.bytes;
  }
  joined.tokens = {.tokens = Integers(tokens, device),
                   .targets = Integers(targets, device),
                   .positions = Integers(positions, device),
                   .offsets = Integers(offsets, device),
                   .host_offsets = offsets};
  return joined;
}

}  // namespace

BatchFeed::BatchFeed(const MeshCommunicators& groups, const FeedOptions& options,
                     const ContextOptions& context, std::unique_ptr<BatchSource> source,
                     runtime::Device& device)
    : groups_(groups),
      options_(options),
      parts_(groups, context, options.split_batch, device),
      source_(std::move(source)),
      device_(device) {}

absl::Status BatchFeed::Agree(const absl::Status& status) const {
  return AgreeOnSuccess(*groups_.world, status, "reading its part of the batch");
}

std::vector<HybridMicroBatch> BatchFeed::PlanRuns(int64_t sequences,
                                                  const std::optional<VirtualShards>& shards) const {
  const int ranks = groups_.mesh.Size(kBatchAxes),
            rank = groups_.mesh.Coordinate(kBatchAxes, groups_.world->rank());
  std::vector<HybridMicroBatch> batches;
  for (const IndexRange& run : shards ? shards->MicroBatchesOf(rank, ranks)
                                      : MicroBatchesOf(sequences, rank, ranks, options_.micro_batch)) {
    HybridMicroBatch& batch = batches.emplace_back();
    batch.sequences.resize(run.size());
    std::iota(batch.sequences.begin(), batch.sequences.end(), run.begin);
  }
  return batches;
}

absl::StatusOr<std::vector<HybridMicroBatch>> BatchFeed::Plan(int64_t sequences, std::optional<int64_t> step,
                                                              bool in_step) {
  if (!options_.hybrid) {
    std::optional<VirtualShards> shards = options_.shards;
    if (shards && !step) shards = shards->OfHeldOut(sequences);
    return PlanRuns(sequences, shards);
  }
  const HybridOptions& hybrid = *options_.hybrid;
  const int ranks = groups_.mesh.Size(kBatchAxes);
  COHORT_ASSIGN_OR_RETURN(const std::vector<int64_t> lengths, step
                                                                  ? source_->TrainingLengths(*step, sequences)
                                                                  : source_->HeldOutLengths(sequences));
  COHORT_ASSIGN_OR_RETURN(const HybridPlan plan,
                          hybrid.fixed_ranks > 0
                              ? PlanStaticBatches(lengths, ranks, hybrid.fixed_ranks, hybrid.tokens)
                              : PlanHybridBatches(lengths, ranks, hybrid.tokens, options_.costs));
  const int rank = groups_.mesh.Coordinate(kBatchAxes, groups_.world->rank());
  std::vector<HybridMicroBatch> batches;
  for (const int index : in_step ? RoundsOf(plan)[rank] : plan.Of(rank)) {
    batches.push_back(index < 0 ? HybridMicroBatch{rank, 1, {}} : plan.micro_batches[index]);
  }
  // Gradients leave with the last backward of a step: there is one.
  if (batches.empty()) batches.push_back({rank, 1, {}});
  return batches;
}

absl::StatusOr<MicroBatch> BatchFeed::Fetch(const HybridMicroBatch& planned, std::optional<int64_t> step) {
  std::vector<Samples> runs;
  const std::vector<int64_t>& wanted = planned.sequences;
  for (size_t begin = 0, end = 0; begin < wanted.size(); begin = end) {
    while (end < wanted.size() && wanted[end] == wanted[begin] + static_cast<int64_t>(end - begin)) ++end;
    const auto count = static_cast<int64_t>(end - begin);
    COHORT_ASSIGN_OR_RETURN(Samples run, step ? source_->Training(*step, wanted[begin], count)
                                              : source_->HeldOut(wanted[begin], count));
    runs.push_back(std::move(run));
  }
  const Samples samples = Join(std::move(runs), device_);
  MicroBatch batch;
  COHORT_ASSIGN_OR_RETURN(batch.tokens,
                          options_.hybrid ? parts_.Of(samples.tokens, planned) : parts_.Of(samples.tokens));
  const bool first = options_.hybrid
                         ? planned.first_rank == groups_.mesh.Coordinate(kBatchAxes, groups_.world->rank()) &&
                               groups_.tensor->rank() == 0
                         : parts_.counts();
  if (first && groups_.pipeline->rank() == 0) {
    batch.predicted = PredictedTokens(samples.tokens);
    batch.bytes = samples.bytes;
  }
  return batch;
}

absl::StatusOr<std::vector<MicroBatch>> BatchFeed::Training(int64_t step) {
  auto planned = Plan(options_.global_batch, step, options_.in_step);
  absl::Status status = planned.status();
  std::vector<MicroBatch> batches;
  for (size_t i = 0; status.ok() && i < planned->size(); ++i) {
    auto batch = Fetch((*planned)[i], step);
    status = batch.status();
    if (batch.ok()) batches.push_back(*std::move(batch));
  }
  COHORT_RETURN_IF_ERROR(Agree(status));
  return batches;
}

absl::StatusOr<std::vector<HybridMicroBatch>> BatchFeed::PlanHeldOut(int64_t sequences) {
  auto planned = Plan(sequences, std::nullopt, /*in_step=*/true);
  COHORT_RETURN_IF_ERROR(Agree(planned.status()));
  return planned;
}

absl::StatusOr<MicroBatch> BatchFeed::HeldOut(const HybridMicroBatch& planned) {
  auto batch = Fetch(planned, std::nullopt);
  COHORT_RETURN_IF_ERROR(Agree(batch.status()));
  return batch;
}

}  // namespace cohort::parallel
