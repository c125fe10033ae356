#include "parallel/stage_sums.h"

#include <algorithm>
#include <functional>

#include "comm/check.h"
#include "parallel/determinism/sum_tree.h"
#include "parallel/global_sums.h"

namespace cohort::parallel {

using runtime::LossSums;
using runtime::ModelConfig;

int SparseBlocks(const ModelConfig& config, int begin, int end) {
  int sparse = 0;
  for (int layer = begin; layer < end; ++layer) sparse += config.IsSparse(layer) ? 1 : 0;
  return sparse;
}

namespace {

int AllSparseBlocks(const ModelConfig& config) {
  return SparseBlocks(config, 0, static_cast<int>(config.num_hidden_layers));
}

// loss and aux_loss of `total`, in the order of the tree.
absl::Status SumLossesInOrder(const ModelConfig& config, const MeshCommunicators& groups,
                              const std::vector<StageSums>& stages, const VirtualShards& shards,
                              LossSums& total) {
  const int rank = groups.world->rank(), ranks = groups.mesh.Size(kBatchAxes),
            shard_rank = groups.mesh.Coordinate(kBatchAxes, rank), parts = groups.mesh.Size(kSequenceAxes),
            part = groups.mesh.Coordinate(kSequenceAxes, rank);
  // [row][part][shard]: the loss, and each sparse block's auxiliary one, so that it does not matter how
  // blocks are divided into stages. One rank has a place's number and the others have zeros: their sum is
  // exact.
  const auto rows = static_cast<size_t>(1 + AllSparseBlocks(config));
  const auto width = static_cast<size_t>(parts * shards.shards);
  std::vector<double> losses(rows * width, 0);
  for (const StageSums& stage : stages) {
    const auto first = static_cast<size_t>(1 + SparseBlocks(config, 0, stage.blocks.first_block));
    for (size_t round = 0; round < stage.micro_batches.size(); ++round) {
      const LossSums& sums = stage.micro_batches[round];
      const int shard = shards.ShardIn(static_cast<int64_t>(round), shard_rank, ranks);
      if (shard < 0) continue;
      const auto place = static_cast<size_t>(part * shards.shards + shard);
      losses[place] += sums.loss;
      size_t row = first;
      for (const double aux : sums.block_aux_losses) losses[row++ * width + place] += aux;
    }
  }
  COHORT_RETURN_IF_ERROR(SumOverRanks(*groups.world, absl::MakeSpan(losses)));
  const SumTree tree(shards.shards, parts);
  const auto sum = [&](size_t row) {
    return SumInOrder(tree, absl::MakeConstSpan(losses).subspan(row * width, width));
  };
  total.loss = sum(0);
  total.aux_loss = 0;
  for (size_t row = 1; row < rows; ++row) total.aux_loss += sum(row);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LossSums> SumStages(const ModelConfig& config, const MeshCommunicators& groups,
                                   const std::vector<StageSums>& stages, const VirtualShards* shards) {
  LossSums total;
  total.expert_load.assign(static_cast<size_t>(AllSparseBlocks(config)),
                           std::vector<int64_t>(static_cast<size_t>(config.num_experts), 0));
  for (const StageSums& stage : stages) {
    const auto first = static_cast<size_t>(SparseBlocks(config, 0, stage.blocks.first_block));
    for (const LossSums& sums : stage.micro_batches) {
      total.loss += sums.loss;
      total.aux_loss += sums.aux_loss;
      total.tokens += sums.tokens;
      total.dropped += sums.dropped;
      auto row = first;
      for (const std::vector<int64_t>& load : sums.expert_load) {
        std::vector<int64_t>& sum = total.expert_load[row++];
        std::transform(load.begin(), load.end(), sum.begin(), sum.begin(), std::plus<>());
      }
    }
  }
  COHORT_RETURN_IF_ERROR(SumOverRanks(*groups.world, total));
  if (shards != nullptr) COHORT_RETURN_IF_ERROR(SumLossesInOrder(config, groups, stages, *shards, total));
  return total;
}

}  // namespace cohort::parallel
