#include "parallel/sharding/replica_group.h"

#include "comm/check.h"
#include "runtime/collectives/over_device.h"

namespace cohort::parallel {

absl::StatusOr<std::unique_ptr<ReplicaGroup>> ReplicaGroup::Connect(const PlacementRow& row,
                                                                    const Splits& stage,
                                                                    const MeshCommunicators& groups,
                                                                    bool everyone) {
  comm::Communicator& replicas = *(groups.*row.replicas);
  const Splits splits = OfEvery(row.stride(groups.mesh.shape()), stage);
  COHORT_CHECK(splits.replicas == replicas.size(), "%d replicas of %s parameters in a group of %d",
               splits.replicas, row.name, replicas.size());
  auto group = std::make_unique<ReplicaGroup>(
      ReplicaGroup{.row = &row, .splits = splits, .tree = ShardTree(splits), .rank = replicas.rank()});
  const auto split = [&](int color, int key) -> absl::StatusOr<std::shared_ptr<comm::Communicator>> {
    COHORT_ASSIGN_OR_RETURN(std::shared_ptr<comm::Communicator> ranks, replicas.Split(color, key));
    return runtime::OverDevice(*groups.over_device.device, std::move(ranks));
  };
  const int refilled = splits.keeps_secondary() ? splits.secondary : 1;
  const struct {
    ShardMove* move;
    int coarse, fine;
  } moves[] = {{&group->gather, 1, splits.parameters},
               {&group->refill, 1, refilled},
               {&group->reduce, 1, splits.gradients},
               {&group->finish, splits.gradients, splits.optimizer},
               {&group->sum, splits.optimizer, splits.replicas},
               {&group->publish, splits.parameters, splits.optimizer}};
  for (const auto& [move, coarse, fine] : moves) {
    *move = {.coarse = coarse, .fine = fine, .ranks = nullptr};
    if (coarse == fine) continue;
    const ShardTree::Place place = group->tree.PlaceIn(coarse, fine, group->rank);
    COHORT_ASSIGN_OR_RETURN(move->ranks, split(place.color, place.key));
  }
  if (everyone && replicas.size() > 1) {
    COHORT_ASSIGN_OR_RETURN(group->everyone, split(0, group->rank));
  }
  return group;
}

}  // namespace cohort::parallel
