// Where the state of a training comes from after its ranks have changed. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cohort/v1/elastic.pb.h"
#include "parallel/reshard/move_training.h"
#include "runtime/model/model_config.h"

namespace cohort::parallel {

struct Source {
  v1::ElasticMesh mesh;  // whose ranks' state it is
  int64_t step = 0;
  int64_t tokens = 0;
  double seconds = 0;
  // By rank of the world: the ranks of that mesh whose state it offers, in the order in which it said so.
  std::vector<std::vector<int>> numbers;
  Move move;  // from there to the new mesh
};

// The newest step that the offers cover, and of several meshes at that step the newest: what is to be moved so that the
// ranks of `next` have it. `hellos` by rank of the world; world_ranks[n]: which of them is rank n of `next`; hosts by
// rank of the world.
// NOT_FOUND: no offers together have all of the state; says of the newest step what is missing.
absl::StatusOr<Source> ChooseSource(absl::Span<const v1::ElasticHello> hellos, const v1::ElasticMesh& next,
                                    absl::Span<const int> world_ranks, const std::vector<int>& hosts,
                                    const runtime::ModelConfig& model);

// The newest mesh that anybody has state of; null: nobody has any.
const v1::ElasticMesh* NewestMesh(absl::Span<const v1::ElasticHello> hellos);

// Whether all ranks of the world have their places in the newest mesh, spares included, and have come to the same step: so
// they could go on as they are. members: of the world, by rank.
bool InPlace(absl::Span<const v1::ElasticHello> hellos, absl::Span<const int> members);

}  // namespace cohort::parallel
