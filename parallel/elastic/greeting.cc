#include "parallel/elastic/greeting.h"

#include <algorithm>
#include <cstddef>

namespace cohort::parallel {

std::optional<Standing> StandingOf(absl::Span<const v1::ElasticGreeting> greetings) {
  Standing standing;
  const auto first =
      std::find_if(greetings.begin(), greetings.end(), [](const auto& said) { return said.has_mesh(); });
  if (first == greetings.end()) return std::nullopt;
  standing.mesh = first->mesh();
  standing.step = first->step();
  standing.world_ranks.assign(static_cast<size_t>(standing.mesh.members_size()), -1);
  standing.numbers.resize(greetings.size());
  for (size_t rank = 0; rank < greetings.size(); ++rank) {
    const v1::ElasticGreeting& said = greetings[rank];
    if (said.leaves()) return std::nullopt;
    const bool spare = said.is_new() || said.mesh_rank() < 0;
    if (said.is_new()) standing.newcomers.push_back(static_cast<int>(rank));
    if (spare) standing.waiting.push_back(static_cast<int>(rank));
    if (said.is_new()) continue;
    if (!said.goes_on() || said.epoch() != standing.mesh.epoch()) return std::nullopt;
    if (spare) continue;
    if (said.step() != standing.step || said.mesh_rank() >= standing.mesh.members_size()) return std::nullopt;
    standing.world_ranks[static_cast<size_t>(said.mesh_rank())] = static_cast<int>(rank);
    standing.numbers[rank] = {said.mesh_rank()};
  }
  const auto missing = std::find(standing.world_ranks.begin(), standing.world_ranks.end(), -1);
  if (missing != standing.world_ranks.end()) return std::nullopt;
  return standing;
}

}  // namespace cohort::parallel
