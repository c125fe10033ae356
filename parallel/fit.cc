#include "parallel/fit.h"

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/sequence/head_parts.h"

namespace cohort::parallel {
namespace {

using runtime::ModelConfig;

absl::Status DoesNotFit(auto&&... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); }

absl::Status CheckNumbers(const ParallelOptions& options) {
  if (options.global_batch < 1) {
    return DoesNotFit("train.global_batch is ", options.global_batch, "; it must be 1 or more");
  }
  if (options.micro_batch < 0) {
    return DoesNotFit("train.micro_batch is ", options.micro_batch,
                      "; it must be 1 or more, or 0 for a rank's whole share");
  }
  if (options.stages_per_rank < 1) {
    return DoesNotFit("parallel.stages_per_rank is ", options.stages_per_rank, "; it must be 1 or more");
  }
  return absl::OkStatus();
}

absl::Status CheckPipeline(const ModelConfig& config, const ParallelOptions& options,
                           const MeshShape& shape) {
  const int64_t stages = int64_t{shape.pipeline} * options.stages_per_rank;
  if (stages > config.num_hidden_layers) {
    return DoesNotFit("parallel.pipeline is ", shape.pipeline, ", with parallel.stages_per_rank ",
                      options.stages_per_rank, ": ", stages, " stages, and the model has ",
                      config.num_hidden_layers, " blocks; a stage has at least one");
  }
  return absl::OkStatus();
}

absl::Status CheckHeads(const ModelConfig& config, const ParallelOptions& options, const MeshShape& shape) {
  const int64_t heads = config.num_attention_heads, kv_heads = config.num_key_value_heads;
  if (heads % shape.tensor != 0 || kv_heads % shape.tensor != 0) {
    return DoesNotFit("parallel.tensor is ", shape.tensor, ", which does not divide ", heads, " heads and ",
                      kv_heads, " key/value heads: it must divide both");
  }
  if (shape.context == 1) return absl::OkStatus();
  const int parts = options.context.ways.forward.head_parts;
  if (parts != options.context.ways.backward.head_parts || parts < 1 || shape.context % parts != 0) {
    return DoesNotFit("parallel.context_way exchanges heads among ", parts, " ranks in the forward and ",
                      options.context.ways.backward.head_parts,
                      " in the backward; it must be one number that divides parallel.context, which is ",
                      shape.context);
  }
  const absl::Status divided = DivideHeads(heads / shape.tensor, kv_heads / shape.tensor, parts).status();
  if (divided.ok()) return divided;
  return DoesNotFit("parallel.context_way exchanges heads among ", parts, " ranks, where parallel.tensor ",
                    shape.tensor, " leaves ", heads / shape.tensor, " heads on each: ", divided.message());
}

absl::Status CheckExperts(const ModelConfig& config, const ParallelOptions& options, const Mesh& mesh) {
  const int expert = mesh.shape().expert;
  if (config.num_experts % expert != 0) {
    return DoesNotFit("parallel.expert is ", expert, ", which does not divide the ", config.num_experts,
                      " experts of a block");
  }
  const int sharers = mesh.Size(kSequenceAxes);
  if (sharers > 1 && config.num_experts > 0 && config.router.capacity_factor > 0) {
    return DoesNotFit("router.capacity_factor is ", config.router.capacity_factor,
                      " and counts the tokens of whole sequences in their order, which parallel.context ",
                      mesh.shape().context, " x parallel.tensor ", mesh.shape().tensor, " divide over ",
                      sharers, " ranks: set it to 0 (no token is dropped), or both axes to 1");
  }
  const int hybrid_sharers = options.hybrid ? mesh.Size(kBatchAxes) : 1;
  if (hybrid_sharers > 1 && config.num_experts > 0 && config.router.capacity_factor > 0) {
    return DoesNotFit(
        "router.capacity_factor is ", config.router.capacity_factor,
        " and counts the tokens of whole sequences in their order, which parallel.hybrid_tokens ",
        options.hybrid->tokens, " may divide over ", hybrid_sharers, " ranks: set either to 0");
  }
  return absl::OkStatus();
}

// What has no fixed order.
absl::Status CheckDeterministic(const ParallelOptions& options) {
  if (!options.deterministic) return absl::OkStatus();
  if (options.sharding.gather_codec || options.sharding.reduce_codec) {
    return DoesNotFit(
        "train.deterministic cannot go with codecs (", options.sharding.DebugString(),
        "): they round what a rank sends, which depends on the number of ranks; choose a sharding "
        "without");
  }
  if (options.hybrid) {
    return DoesNotFit("train.deterministic cannot go with parallel.hybrid_tokens ", options.hybrid->tokens,
                      ": which sequences are computed together then depends on the number of ranks");
  }
  if (options.virtual_shards < 0) {
    return DoesNotFit("train.virtual_shards is ", options.virtual_shards, "; it must be 1 or more, or 0 for ",
                      VirtualShards::kDefault);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckFit(const ModelConfig& config, const ParallelOptions& options, const Mesh& mesh) {
  const MeshShape& shape = mesh.shape();
  COHORT_RETURN_IF_ERROR(CheckNumbers(options));
  COHORT_RETURN_IF_ERROR(CheckPipeline(config, options, shape));
  COHORT_RETURN_IF_ERROR(CheckHeads(config, options, shape));
  COHORT_RETURN_IF_ERROR(CheckExperts(config, options, mesh));
  COHORT_RETURN_IF_ERROR(CheckDeterministic(options));
  const absl::Status splits =
      Resolve(options.sharding, shape.shard * shape.context * shape.tensor, mesh.stage_size()).status();
  return splits.ok() ? splits : DoesNotFit("parallel.sharding: ", splits.message());
}

}  // namespace cohort::parallel
