#include "parallel/elastic/sources.h"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/elastic/elastic_mesh.h"

namespace cohort::parallel {
namespace {

// What is offered of one mesh at one step.
struct Generation {
  int64_t tokens = 0;
  double seconds = 0;
  std::vector<std::vector<int>> numbers;  // by rank of the world
};
using Key = std::pair<int64_t, uint32_t>;  // step, epoch

std::map<Key, Generation, std::greater<>> Generations(absl::Span<const v1::ElasticHello> hellos) {
  std::map<Key, Generation, std::greater<>> generations;
  for (size_t rank = 0; rank < hellos.size(); ++rank) {
    for (const v1::ElasticOffer& offer : hellos[rank].offers()) {
      Generation& generation = generations[{offer.step(), offer.epoch()}];
      generation.numbers.resize(hellos.size());
      generation.numbers[rank].push_back(offer.mesh_rank());
      generation.tokens = offer.tokens();
      generation.seconds = std::max(generation.seconds, offer.seconds());
    }
  }
  return generations;
}

const v1::ElasticMesh* FindMesh(absl::Span<const v1::ElasticHello> hellos, uint32_t epoch) {
  for (const v1::ElasticHello& hello : hellos) {
    for (const v1::ElasticMesh& mesh : hello.meshes()) {
      if (mesh.epoch() == epoch) return &mesh;
    }
  }
  return nullptr;
}

}  // namespace

const v1::ElasticMesh* NewestMesh(absl::Span<const v1::ElasticHello> hellos) {
  const v1::ElasticMesh* newest = nullptr;
  for (const v1::ElasticHello& hello : hellos) {
    for (const v1::ElasticMesh& mesh : hello.meshes()) {
      if (newest == nullptr || mesh.epoch() > newest->epoch()) newest = &mesh;
    }
  }
  return newest;
}

bool InPlace(absl::Span<const v1::ElasticHello> hellos, absl::Span<const int> members) {
  const v1::ElasticMesh* const now = NewestMesh(hellos);
  if (now == nullptr) return false;
  std::optional<int64_t> step;
  int placed = 0;
  for (size_t rank = 0; rank < hellos.size(); ++rank) {
    const v1::ElasticHello& hello = hellos[rank];
    const auto place = std::find(now->members().begin(), now->members().end(), members[rank]);
    if (place == now->members().end()) {
      const bool knows =
          std::any_of(hello.meshes().begin(), hello.meshes().end(),
                      [&](const v1::ElasticMesh& mesh) { return mesh.epoch() == now->epoch(); });
      if (!knows) return false;  // it has just come
      continue;
    }
    // What a rank trains it offers first.
    if (hello.offers().empty()) return false;
    const v1::ElasticOffer& offer = hello.offers(0);
    if (offer.epoch() != now->epoch() || offer.mesh_rank() != place - now->members().begin() ||
        offer.step() != step.value_or(offer.step())) {
      return false;
    }
    step = offer.step();
    ++placed;
  }
  return placed == now->members_size();
}

absl::StatusOr<Source> ChooseSource(absl::Span<const v1::ElasticHello> hellos, const v1::ElasticMesh& next,
                                    absl::Span<const int> world_ranks, const std::vector<int>& hosts,
                                    const runtime::ModelConfig& model) {
  COHORT_ASSIGN_OR_RETURN(const Layout after, LayoutOf(next, model));
  std::vector<int> places(hellos.size(), -1);
  for (size_t n = 0; n < world_ranks.size(); ++n)
    places[static_cast<size_t>(world_ranks[n])] = static_cast<int>(n);

  absl::Status missing = absl::NotFoundError("no rank has any state of the training");
  bool first = true;
  for (auto& [key, generation] : Generations(hellos)) {
    const auto& [step, epoch] = key;
    const v1::ElasticMesh* mesh = FindMesh(hellos, epoch);
    if (mesh == nullptr) {
      return absl::InternalError(absl::StrCat("state of epoch ", epoch, " is offered, and its mesh is not"));
    }
    COHORT_ASSIGN_OR_RETURN(const Layout before, LayoutOf(*mesh, model));
    absl::StatusOr<Move> move = PlanMove(before, after, {generation.numbers, places}, hosts);
    if (move.ok()) {
      return Source{.mesh = *mesh,
                    .step = step,
                    .tokens = generation.tokens,
                    .seconds = generation.seconds,
                    .numbers = std::move(generation.numbers),
                    .move = *std::move(move)};
    }
    if (!absl::IsNotFound(move.status())) return move.status();
    if (std::exchange(first, false)) {
      missing = absl::NotFoundError(
          absl::StrCat("the state after step ", step, " is not whole: ", move.status().message()));
    }
  }
  return missing;
}

}  // namespace cohort::parallel
