#include "parallel/elastic/change.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "parallel/elastic/decide_mesh.h"
#include "parallel/elastic/elastic_mesh.h"
#include "parallel/global_sums.h"
#include "parallel/reshard/resharder.h"
#include "parallel/share_values.h"
#include "runtime/metrics/chrome_trace.h"

namespace cohort::parallel {
namespace {

v1::ElasticOffer OfferWords(const v1::ElasticMesh& mesh, int mesh_rank, const ElasticCounts& counts) {
  v1::ElasticOffer offer;
  offer.set_epoch(mesh.epoch());
  offer.set_mesh_rank(mesh_rank);
  offer.set_step(counts.step);
  offer.set_tokens(counts.tokens);
  offer.set_seconds(counts.seconds);
  return offer;
}

bool Is(const v1::ElasticOffer& offer, const Source& source, int number) {
  return offer.epoch() == source.mesh.epoch() && offer.step() == source.step && offer.mesh_rank() == number;
}

}  // namespace

void Changer::SetPlaces(std::vector<int> world_ranks, std::vector<int> spares) {
  world_ranks_ = std::move(world_ranks);
  spares_ = std::move(spares);
}

void Changer::Renumber(const std::vector<int>& previous_rank) {
  for (std::vector<int>* ranks : {&world_ranks_, &spares_}) {
    for (int& rank : *ranks) {
      rank = static_cast<int>(std::find(previous_rank.begin(), previous_rank.end(), rank) -
                              previous_rank.begin());
    }
  }
}

void Changer::Adopt(std::unique_ptr<ElasticPart> next, const ElasticCounts& counts) {
  before_ = std::exchange(part_, std::move(next));
  counts_before_ = std::exchange(counts_, counts);
}

void Changer::Count(const runtime::StepReport& report) {
  counts_.step = report.step;
  counts_.tokens += report.tokens;
  counts_.seconds += report.seconds;
}

v1::ElasticHello Changer::Hello() {
  v1::ElasticHello hello;
  hello.set_leaves(host_.AskedToLeave());
  hello.set_name(host_.name());
  const auto offer = [&](const v1::ElasticMesh& mesh, const v1::ElasticOffer& offered) {
    // Twice the same from one rank says nothing more.
    for (const v1::ElasticOffer& other : hello.offers()) {
      if (other.epoch() == offered.epoch() && other.step() == offered.step() &&
          other.mesh_rank() == offered.mesh_rank()) {
        return false;
      }
    }
    *hello.add_offers() = offered;
    const auto& meshes = hello.meshes();
    const bool known = std::any_of(meshes.begin(), meshes.end(), [&](const v1::ElasticMesh& other) {
      return other.epoch() == mesh.epoch();
    });
    if (!known) *hello.add_meshes() = mesh;
    return true;
  };
  const auto offer_part = [&](const std::unique_ptr<ElasticPart>& part, ElasticCounts counts) {
    if (part == nullptr) return;
    if (part->spare()) {
      *hello.add_meshes() = part->mesh;  // so that who comes knows it
      return;
    }
    counts.step = part->optimizer.step;  // an update that was made and not counted: its step failed after it
    (void)offer(part->mesh, OfferWords(part->mesh, part->group->rank(), counts));
  };
  offer_part(part_, counts_);
  offer_part(before_, counts_before_);
  kept_.clear();
  for (KeptState& kept : host_.Kept(world_)) {
    if (offer(kept.mesh, kept.offer)) kept_.push_back(std::move(kept));
  }
  return hello;
}

absl::StatusOr<Offer> Changer::OfferOf(const Source& source) {
  Offer offer{.step = source.step, .state = {}};
  const auto add = [&](const HeldState& held) {
    offer.state.pieces.insert(offer.state.pieces.end(), held.pieces.begin(), held.pieces.end());
    offer.state.memory.insert(offer.state.memory.end(), held.memory.begin(), held.memory.end());
    offer.state.devices.insert(offer.state.devices.end(), held.devices.begin(), held.devices.end());
  };
  const auto add_part = [&](const std::unique_ptr<ElasticPart>& part, int number) {
    if (part == nullptr || part->spare() || part->mesh.epoch() != source.mesh.epoch() ||
        part->group->rank() != number || part->optimizer.step != source.step) {
      return false;
    }
    add(HeldBy(*part->model, part->optimizer));
    return true;
  };
  COHORT_ASSIGN_OR_RETURN(const Layout layout, LayoutOf(source.mesh, options_.model));
  for (const int number : source.numbers[static_cast<size_t>(world_.rank())]) {
    if (add_part(part_, number) || add_part(before_, number)) continue;
    for (const KeptState& kept : kept_) {
      if (!Is(kept.offer, source, number)) continue;
      HeldState held{.pieces = layout.ranks[static_cast<size_t>(number)], .memory = {}, .devices = {}};
      // A source is only read.
      for (const void* piece : kept.pieces) held.memory.push_back(const_cast<void*>(piece));
      held.devices.assign(held.memory.size(), &runtime::CpuDevice());
      add(held);
      break;
    }
  }
  return offer;
}

absl::StatusOr<Changed> Changer::Run(const std::string& cause, const Coming& coming, absl::Time since) {
  const runtime::TraceScope trace("reshard");
  COHORT_ASSIGN_OR_RETURN(const std::string gone, host_.Recover(world_));
  COHORT_ASSIGN_OR_RETURN(const std::vector<std::string> texts,
                          GatherStrings(world_, Hello().SerializeAsString()));
  std::vector<v1::ElasticHello> hellos(texts.size());
  int leaving = 0;
  staying_.clear();
  ElasticChange change;
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    if (!hellos[rank].ParseFromString(texts[rank])) {
      return absl::InternalError(absl::StrCat("rank ", rank, " says what this program does not understand"));
    }
    change.names.push_back(hellos[rank].name());
    if (!hellos[rank].leaves()) staying_.push_back(hellos[rank].name());
    if (!hellos[rank].leaves()) continue;
    ++leaving;
    change.left.push_back(world_.members()[rank]);
  }
  const bool all_leave = leaving == world_.size();
  if (all_leave && InPlace(hellos, world_.members())) return Changed::kAllLeave;
  if (all_leave) {
    // What they leave behind has to be whole: they change as if they stayed, and go then.
    for (v1::ElasticHello& hello : hellos) hello.set_leaves(false);
    change.left.clear();
    leaving = 0;
  }

  std::string text;
  absl::Status status;
  if (world_.rank() == 0) {
    std::vector<int> staying;
    for (int rank = 0; rank < world_.size(); ++rank) {
      if (!hellos[static_cast<size_t>(rank)].leaves()) staying.push_back(rank);
    }
    const v1::ElasticMesh* now = NewestMesh(hellos);
    absl::StatusOr<v1::ElasticDecision> decision =
        DecideMesh(world_, world_.epoch(), staying, now == nullptr ? nullptr : &now->config(), options_);
    status = decision.status();
    if (decision.ok()) text = decision->SerializeAsString();
  }
  COHORT_RETURN_IF_ERROR(AgreeOnSuccess(world_, status, "choosing a mesh"));
  COHORT_RETURN_IF_ERROR(ShareValues(world_, DataType::kU8, text));
  v1::ElasticDecision decision;
  if (!decision.ParseFromString(text)) return absl::InternalError("a decision that cannot be read");
  std::vector<int> spares;
  for (int rank = 0; rank < world_.size(); ++rank) {
    const auto& ranks = decision.world_ranks();
    const bool leaves = hellos[static_cast<size_t>(rank)].leaves();
    if (!leaves && std::find(ranks.begin(), ranks.end(), rank) == ranks.end()) spares.push_back(rank);
  }
  SetPlaces({decision.world_ranks().begin(), decision.world_ranks().end()}, std::move(spares));

  absl::StatusOr<std::unique_ptr<ElasticPart>> next =
      MakePart(world_, decision, options_.model, device_, [&] { return host_.MakeSource(); });
  COHORT_RETURN_IF_ERROR(AgreeOnSuccess(world_, next.status(), "making its part of the model"));
  const bool offers = std::any_of(hellos.begin(), hellos.end(),
                                  [](const v1::ElasticHello& hello) { return hello.offers_size() > 0; });
  ElasticCounts counts;
  absl::Status missing;
  if (offers) {
    const absl::StatusOr<Source> source =
        ChooseSource(hellos, decision.mesh(), world_ranks_, HostsOf(world_), options_.model);
    if (!source.ok() && !absl::IsNotFound(source.status())) return source.status();
    missing = source.status();
    if (source.ok()) {
      COHORT_ASSIGN_OR_RETURN(const auto resharder, Resharder::Create(world_));
      const TrainingPart to =
          (*next)->spare() ? TrainingPart() : TrainingPart{(*next)->model.get(), &(*next)->optimizer};
      COHORT_ASSIGN_OR_RETURN(const Offer offer, OfferOf(*source));
      COHORT_RETURN_IF_ERROR(MoveTraining(*resharder, source->move, offer, to, options_.move_timeout));
      counts = {.step = source->step, .tokens = source->tokens, .seconds = source->seconds};
      change.moved = source->move.totals();
    }
  }
  if (!offers || !missing.ok()) {
    absl::StatusOr<ElasticCounts> loaded = ElasticCounts();
    if (!(*next)->spare()) loaded = host_.Load(**next);
    COHORT_RETURN_IF_ERROR(AgreeOnSuccess(world_, loaded.status(), "loading the state of the training"));
    counts = *loaded;
    change.from_disk = offers;
    if (offers) absl::StrAppend(&change.why, missing.message(), gone.empty() ? "" : "; ", gone, "; ");
  }
  Adopt(*std::move(next), counts);
  kept_.clear();

  change.epoch = world_.epoch();
  change.member = world_.members()[static_cast<size_t>(world_.rank())];
  change.cause = cause;
  change.lost = coming.lost;
  change.joined = coming.joined;
  change.mesh = DebugString(part_->mesh, options_.model);
  absl::StrAppend(&change.why, decision.why());
  change.counts = counts_;
  change.seconds = absl::ToDoubleSeconds(absl::Now() - since);
  COHORT_RETURN_IF_ERROR(host_.OnChange(*part_, change));
  if (leaving == 0) return all_leave ? Changed::kAllLeave : Changed::kAllStay;
  return hellos[static_cast<size_t>(world_.rank())].leaves() ? Changed::kThisLeaves : Changed::kSomeLeave;
}

}  // namespace cohort::parallel
