// What the stages of a model made of their micro-batches, added up over micro-batches and ranks.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "parallel/determinism/virtual_shards.h"
#include "parallel/mesh_communicators.h"
#include "runtime/model/batch.h"
#include "runtime/model/decoder.h"

namespace cohort::parallel {

// Sparse ones of blocks [begin, end): rows of LossSums::expert_load.
int SparseBlocks(const runtime::ModelConfig& config, int begin, int end);

// Of one stage of this rank, by micro-batch.
struct StageSums {
  runtime::DecoderPart blocks;
  absl::Span<const runtime::LossSums> micro_batches;
};

// Collective over the world: the same bits on every rank. shards: deterministic mode, whose micro-batches
// these are: losses are then added in the order of the tree. Null otherwise.
absl::StatusOr<runtime::LossSums> SumStages(const runtime::ModelConfig& config,
                                            const MeshCommunicators& groups,
                                            const std::vector<StageSums>& stages,
                                            const VirtualShards* shards);

}  // namespace cohort::parallel
