// What the members say when others have come or gone, and what follows: a pure function.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "cohort/v1/elastic.pb.h"

namespace cohort::parallel {

// A mesh that trains on while members come and go beside it. Ranks are of the world.
struct Standing {
  v1::ElasticMesh mesh;
  int64_t step = 0;                       // done
  std::vector<int> world_ranks;           // by rank of the mesh
  std::vector<int> waiting;               // spares and newcomers, ascending
  std::vector<int> newcomers;             // those of them that are new
  std::vector<std::vector<int>> numbers;  // by rank of the world: its rank of the mesh; none: it waits
};

// `greetings` by rank of the world. Nothing where all have to change at once: somebody leaves, somebody's step has
// failed, a rank of the mesh is not there any more, or nothing trains yet.
std::optional<Standing> StandingOf(absl::Span<const v1::ElasticGreeting> greetings);

}  // namespace cohort::parallel
