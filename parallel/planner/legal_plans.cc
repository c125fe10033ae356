#include "parallel/planner/legal_plans.h"

#include "absl/strings/str_cat.h"
#include "parallel/sharding/sharding.h"

namespace cohort::parallel::planner {
namespace {

// False where the plan cannot be, after `refuse` got the parts of a message that says why: "reason: numbers".
template <typename Refuse>
bool Legal(const ModelCost& model, const Work& work, int ranks, const MeshPlan& plan, const Refuse& refuse) {
  const MeshShape& shape = plan.shape;
  const runtime::ModelConfig& config = model.config();
  const int64_t used = static_cast<int64_t>(shape.pipeline) * shape.shard * shape.context * shape.tensor;
  if (ranks % used != 0) {
    return refuse("axes that do not divide the ranks: ", shape.DebugString(), " are ", used, " of ", ranks);
  }
  const int stage = ranks / shape.pipeline;
  if (stage % shape.expert != 0) {
    return refuse("experts that do not divide a stage: expert ", shape.expert, " of ", stage, " ranks");
  }
  if (shape.expert > 1 && (config.num_experts == 0 || config.num_experts % shape.expert != 0)) {
    return refuse("experts that do not divide: ", config.num_experts, " over ", shape.expert, " ranks");
  }
  if (config.num_attention_heads % shape.tensor != 0 || config.num_key_value_heads % shape.tensor != 0) {
    return refuse("heads that do not divide: ", config.num_attention_heads, " and ",
                  config.num_key_value_heads, " key/value heads over ", shape.tensor, " tensor ranks");
  }
  if (shape.pipeline * plan.chunks > model.blocks()) {
    return refuse("more stages than blocks: ", shape.pipeline * plan.chunks, " of ", model.blocks());
  }
  if (shape.tensor * shape.context > 1 && config.num_experts > 0 && config.router.capacity_factor > 0) {
    return refuse("a capacity of experts, which is of whole sequences: context ", shape.context, ", tensor ",
                  shape.tensor);
  }
  // Zigzag: two pieces of a sequence a rank.
  if (shape.context > 1 && work.sequence_length < int64_t{2} * shape.context) {
    return refuse("sequences too short for the context axis: ", work.sequence_length, " tokens over ",
                  shape.context, " ranks");
  }
  if (plan.micro_batch < 1 || plan.micro_batch > LocalBatch(work, ranks, shape)) {
    return refuse("micro-batches larger than a rank's share: ", plan.micro_batch, " of ",
                  LocalBatch(work, ranks, shape), " sequences");
  }
  const absl::Status levels =
      Resolve(plan.sharding, shape.shard * shape.context * shape.tensor, stage).status();
  return levels.ok() || refuse("shardings that are not legal: ", levels.message());
}

std::vector<int> DivisorsOf(int number) {
  std::vector<int> divisors, large;
  for (int i = 1; i * i <= number; ++i) {
    if (number % i != 0) continue;
    divisors.push_back(i);
    if (i != number / i) large.push_back(number / i);
  }
  divisors.insert(divisors.end(), large.rbegin(), large.rend());
  return divisors;
}

// visit(plan): those whose axes divide the ranks, with nothing split and the defaults of everything else.
template <typename Visit>
void VisitShapes(const ModelCost& model, int ranks, const Choices& choices, const Visit& visit) {
  MeshPlan plan;
  const std::vector<int> one = {1};
  for (const int pipeline : DivisorsOf(ranks)) {
    const int stage = ranks / pipeline;
    const std::vector<int> experts =
        model.config().num_experts == 0 && !choices.expert ? one : DivisorsOf(stage);
    for (const int tensor : DivisorsOf(stage)) {
      for (const int context : DivisorsOf(stage / tensor)) {
        for (const int shard : DivisorsOf(stage / tensor / context)) {
          for (const int expert : experts) {
            plan.shape = {pipeline, shard, context, tensor, expert};
            if (choices.Allow(plan.shape)) visit(plan);
          }
        }
      }
    }
  }
}

}  // namespace

int64_t LocalBatch(const Work& work, int ranks, const MeshShape& shape) {
  const int64_t data = ranks / shape.pipeline / shape.tensor / shape.context;
  return (work.global_batch + data - 1) / data;
}

absl::Status CheckPlan(const ModelCost& model, const Work& work, int ranks, const MeshPlan& plan) {
  absl::Status status;
  Legal(model, work, ranks, plan, [&](const auto&... parts) {
    status = absl::InvalidArgumentError(absl::StrCat(parts...));
    return false;
  });
  return status;
}

std::vector<MeshShape> LegalShapes(const ModelCost& model, const Work& work, int ranks,
                                   const Choices& choices, Refusals& refused) {
  std::vector<MeshShape> shapes;
  VisitShapes(model, ranks, choices, [&](const MeshPlan& plan) {
    const absl::Status legal = CheckPlan(model, work, ranks, plan);
    if (legal.ok()) {
      shapes.push_back(plan.shape);
    } else {
      refused.Add(kMeshes, legal);
    }
  });
  return shapes;
}

size_t CountLegalShapes(const ModelCost& model, const Work& work, int ranks, const Choices& choices) {
  size_t count = 0;
  VisitShapes(model, ranks, choices, [&](const MeshPlan& plan) {
    count += Legal(model, work, ranks, plan, [](const auto&...) { return false; }) ? 1 : 0;
  });
  return count;
}

}  // namespace cohort::parallel::planner
