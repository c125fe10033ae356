#include "parallel/elastic/warm_up.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "comm/check.h"
#include "comm/communicator.h"
#include "parallel/configured_model.h"
#include "parallel/elastic/elastic_mesh.h"
#include "runtime/metrics/chrome_trace.h"

namespace cohort::parallel {

absl::Status WarmUp(const v1::ElasticMesh& mesh, const runtime::ModelConfig& model, runtime::Device& device,
                    std::unique_ptr<BatchSource> source) {
  const runtime::TraceScope trace("warm up");
  COHORT_ASSIGN_OR_RETURN(const Arrangement arrangement, ArrangementOf(mesh, model));
  const MeshShape& shape = arrangement.shape;
  const int replicas = mesh.members_size() / (shape.pipeline * shape.context * shape.tensor);
  v1::TrainConfig alone = mesh.config();
  const int64_t share = std::max<int64_t>(1, alone.train().global_batch() / replicas);
  const int64_t micro_batch = alone.train().micro_batch();
  alone.mutable_train()->set_global_batch(micro_batch > 0 ? std::min(micro_batch, share) : share);
  alone.mutable_train()->set_deterministic(false);
  v1::ParallelSection& section = *alone.mutable_parallel();
  section.set_pipeline(1);
  section.set_context(1);
  section.set_tensor(1);
  section.set_expert(1);
  section.set_shard(1);
  section.set_schedule("1f1b");
  section.set_stages_per_rank(1);
  section.set_sharding("ddp");
  section.set_split_batch(false);
  section.set_hybrid_tokens(0);
  section.clear_secondary();
  section.clear_gather_codec();
  section.clear_reduce_codec();
  runtime::ModelConfig first = model;
  first.num_hidden_layers = 1;
  COHORT_ASSIGN_OR_RETURN(
      const auto part,
      MakeConfiguredModel(alone, first, device, comm::Communicator::Single(), std::move(source)));
  part->Initialize(1);
  return part->ComputeGradients(0).status();
}

}  // namespace cohort::parallel
