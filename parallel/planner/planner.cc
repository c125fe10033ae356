#include "parallel/planner/planner.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "parallel/planner/legal_plans.h"
#include "parallel/planner/policy.h"

namespace cohort::parallel::planner {
namespace {

constexpr char kShardings[] = "shardings of a mesh", kPlans[] = "plans";

struct NamedSharding {
  std::string name;
  Sharding sharding;
};

std::vector<NamedSharding> ShardingsToTry(const Choices& choices) {
  std::vector<NamedSharding> rows;
  if (choices.sharding.has_value()) {
    rows.push_back({*choices.sharding, choices.Complete(1).sharding});
    return rows;
  }
  for (const ShardingRow& row : ShardingRows()) {
    if (!row.sharding.gather_codec && !row.sharding.reduce_codec) rows.push_back({row.name, row.sharding});
  }
  return rows;
}

std::vector<int64_t> MicroBatchesToTry(const Choices& choices, int64_t local) {
  if (choices.micro_batch.has_value()) return {*choices.micro_batch};
  std::vector<int64_t> sizes;
  for (int64_t size = 1; size < local && sizes.size() + 1 < policy::kMicroBatches; size *= 2)
    sizes.push_back(size);
  sizes.push_back(local);
  return sizes;
}

std::vector<std::string> SchedulesToTry(const Choices& choices, int pipeline) {
  if (pipeline == 1) return {"1f1b"};
  if (choices.schedule.has_value()) return {*choices.schedule};
  return PlannedSchedules();
}

bool Faster(const PlannedMesh& a, const PlannedMesh& b) { return a.seconds() < b.seconds(); }

// Goes through plans and keeps the best.
class Search {
 public:
  Search(const ModelCost& model, const Work& work, const Cluster& cluster, const Choices& choices,
         size_t keep)
      : cluster_(cluster),
        choices_(choices),
        keep_(keep),
        model_(model),
        work_(work),
        pricer_(model, work, cluster) {}

  absl::StatusOr<MeshRanking> Run() {
    struct Bounded {
      MeshShape shape;
      double least;
    };
    std::vector<Bounded> shapes;
    for (const MeshShape& shape : LegalShapes(model_, work_, pricer_.ranks(), choices_, ranking_.refused)) {
      shapes.push_back({shape, pricer_.LeastSeconds(shape)});
    }
    ranking_.meshes = static_cast<int64_t>(shapes.size());
    std::stable_sort(shapes.begin(), shapes.end(),
                     [](const Bounded& a, const Bounded& b) { return a.least < b.least; });
    for (size_t i = 0; i < shapes.size(); ++i) {
      if (found_.size() == most() && shapes[i].least > found_.back().seconds()) {
        ranking_.bounded = static_cast<int64_t>(shapes.size() - i);
        break;
      }
      Try(shapes[i].shape);
    }
    if (found_.empty()) return NothingFound();
    COHORT_RETURN_IF_ERROR(Finish());
    ListOthers();
    PriceDataParallel();
    return std::move(ranking_);
  }

 private:
  // More than are asked for: the simulation may change their order.
  size_t most() const { return 2 * keep_; }

  bool Fits(const MeshPrice& price) const {
    return cluster_.memory == 0 || price.memory.total() <= static_cast<double>(cluster_.memory);
  }

  void Try(const MeshShape& shape) {
    const int stage = pricer_.ranks() / shape.pipeline;
    const int span = shape.shard * shape.context * shape.tensor;
    const int host = cluster_.machine.hosts->most_on_a_host();
    if (shape.shard > 1 && !choices_.shard.has_value() && pricer_.ranks() > policy::kEverySpanUpTo &&
        host % span != 0 && span % host != 0) {
      ranking_.refused.Add(
          kMeshes, absl::InvalidArgumentError(absl::StrCat(
                       "shard spans that are neither a part of a host nor whole hosts (not tried on many "
                       "ranks): ",
                       span, " of hosts with ", host, " ranks")));
      return;
    }
    for (const NamedSharding& row : ShardingsToTry(choices_)) {
      const auto splits = Resolve(row.sharding, span, stage);
      if (!splits.ok()) {
        ranking_.refused.Add(kShardings, splits.status());
        continue;
      }
      // The same arrangement by another name, or with a shard axis that nothing is split over.
      if (!tried_
               .insert({shape.pipeline, shape.context, shape.tensor, shape.expert, splits->parameters,
                        splits->secondary, splits->gradients, splits->optimizer})
               .second) {
        continue;
      }
      MeshPlan plan;
      plan.shape = shape;
      plan.sharding_name = row.name;
      plan.sharding = row.sharding;
      TrySharding(std::move(plan));
    }
  }

  void TrySharding(MeshPlan plan) {
    const int64_t local = pricer_.LocalBatch(plan.shape);
    for (const int64_t size : MicroBatchesToTry(choices_, local)) {
      plan.micro_batch = size;
      for (const std::string& schedule : SchedulesToTry(choices_, plan.shape.pipeline)) {
        plan.schedule = schedule;
        plan.chunks = ChunksOf(schedule);
        const absl::Status legal = pricer_.Check(plan);
        if (!legal.ok()) {
          ranking_.refused.Add(kPlans, legal);
          continue;
        }
        // Computing again only takes longer: for what does not fit otherwise.
        for (const bool recompute : {false, true}) {
          if (choices_.recompute.has_value() && *choices_.recompute != recompute) continue;
          plan.recompute = recompute;
          if (Consider(plan)) break;
        }
      }
    }
  }

  static bool Better(const PlannedMesh& a, const PlannedMesh& b) {
    if (a.fits != b.fits) return a.fits;
    return a.fits ? Faster(a, b) : a.price.memory.total() < b.price.memory.total();
  }

  void KeepBestOfMesh(const PlannedMesh& priced) {
    const MeshShape& shape = priced.plan.shape;
    const auto [at, added] =
        best_of_mesh_.try_emplace({shape.pipeline, shape.context, shape.tensor, shape.expert}, priced);
    if (!added && Better(priced, at->second)) at->second = priced;
  }

  // After the first one is known.
  void ListOthers() {
    const MeshShape& first = ranking_.best[0].plan.shape;
    best_of_mesh_.erase({first.pipeline, first.context, first.tensor, first.expert});
    for (auto& [shape, priced] : best_of_mesh_) ranking_.others.push_back(std::move(priced));
    std::stable_sort(ranking_.others.begin(), ranking_.others.end(), Better);
    if (ranking_.others.size() > keep_) ranking_.others.resize(keep_);
    for (PlannedMesh& other : ranking_.others) {
      absl::StatusOr<MeshPrice> price = SimulateSmall(other);
      if (price.ok()) other.price = *std::move(price);
    }
    std::stable_sort(ranking_.others.begin(), ranking_.others.end(), Better);
  }

  // Where that takes no long time.
  absl::StatusOr<MeshPrice> SimulateSmall(const PlannedMesh& found) {
    const double actions =
        static_cast<double>(found.plan.shape.pipeline) * found.plan.chunks * found.price.micro_batches;
    if (found.plan.shape.pipeline == 1 || actions > policy::kSimulatedActions) return found.price;
    return pricer_.Simulate(found.plan);
  }

  // Whether it fits.
  bool Consider(const MeshPlan& plan) {
    ++ranking_.priced;
    PlannedMesh priced = {plan, pricer_.Price(plan)};
    priced.fits = Fits(priced.price);
    KeepBestOfMesh(priced);
    if (!priced.fits) {
      ranking_.refused.Add(
          kPlans, absl::ResourceExhaustedError(absl::StrFormat(
                      "more than a rank's memory: %.3g GB of %.3g (%s)", priced.price.memory.total() / 1e9,
                      static_cast<double>(cluster_.memory) / 1e9, plan.DebugString())));
      if (!smallest_ || priced.price.memory.total() < smallest_->price.memory.total()) smallest_ = priced;
      return false;
    }
    if (found_.size() == most() && !Faster(priced, found_.back())) return true;
    found_.insert(std::upper_bound(found_.begin(), found_.end(), priced, Faster), priced);
    if (found_.size() > most()) found_.pop_back();
    return true;
  }

  absl::Status Finish() {
    for (PlannedMesh& found : found_) {
      absl::StatusOr<MeshPrice> price = SimulateSmall(found);
      if (price.ok()) {
        found.price = *std::move(price);
      } else {
        ranking_.refused.Add(kPlans, absl::InvalidArgumentError(absl::StrCat(
                                         "schedules that cannot be made: ", price.status().message())));
        found.price.micro_batches = 0;
      }
    }
    std::erase_if(found_, [](const PlannedMesh& found) { return found.price.micro_batches == 0; });
    if (found_.empty()) return NothingFound();
    std::stable_sort(found_.begin(), found_.end(), Faster);
    if (found_.size() > keep_) found_.resize(keep_);
    ranking_.best = std::move(found_);
    return absl::OkStatus();
  }

  void PriceDataParallel() {
    for (const int64_t size : MicroBatchesToTry({}, pricer_.LocalBatch({}))) {
      for (const bool recompute : {false, true}) {
        MeshPlan plan;
        plan.micro_batch = size;
        plan.recompute = recompute;
        PlannedMesh priced = {plan, pricer_.Price(plan)};
        const bool fits = Fits(priced.price);
        std::optional<PlannedMesh>& best = ranking_.data_parallel;
        const bool better =
            !best.has_value() || (fits && !ranking_.data_parallel_fits) ||
            (fits == ranking_.data_parallel_fits &&
             (fits ? Faster(priced, *best) : priced.price.memory.total() < best->price.memory.total()));
        if (!better) continue;
        ranking_.data_parallel_fits = fits;
        best = std::move(priced);
      }
    }
  }

  absl::Status NothingFound() const {
    if (smallest_.has_value()) {
      return absl::ResourceExhaustedError(
          absl::StrFormat("no mesh of %d ranks fits: a rank has %.3g GB, and of %d plans the smallest, %s, "
                          "needs %.3g GB; use more "
                          "ranks, or a shorter sequence",
                          pricer_.ranks(), static_cast<double>(cluster_.memory) / 1e9, ranking_.priced,
                          smallest_->plan.DebugString(), smallest_->price.memory.total() / 1e9));
    }
    std::vector<std::string> reasons;
    for (const Refusal& row : ranking_.refused.rows()) reasons.push_back(row.DebugString());
    return absl::InvalidArgumentError(absl::StrCat(
        "no mesh of ", pricer_.ranks(), " ranks is legal",
        reasons.empty() ? absl::StrCat(": what is chosen (", choices_.Complete(1).shape.DebugString(),
                                       ") does not divide them")
                        : absl::StrCat("; refused: ", absl::StrJoin(reasons, "; "))));
  }

  const Cluster& cluster_;
  const Choices& choices_;
  const size_t keep_;
  const ModelCost& model_;
  const Work& work_;
  MeshPricer pricer_;
  MeshRanking ranking_;
  std::vector<PlannedMesh> found_;  // fastest first
  std::optional<PlannedMesh> smallest_;
  std::map<std::tuple<int, int, int, int>, PlannedMesh> best_of_mesh_;
  std::set<std::tuple<int, int, int, int, int, int, int, int>> tried_;
};

// The part in which b takes most longer than a.
std::string Difference(const StepTime& a, const StepTime& b) {
  const StepPart* most = &StepParts()[0];
  for (const StepPart& part : StepParts()) {
    if (b.*part.seconds - a.*part.seconds > b.*most->seconds - a.*most->seconds) most = &part;
  }
  return absl::StrFormat("most in %s, %.4g s against %.4g", most->name, b.*most->seconds, a.*most->seconds);
}

}  // namespace

int MeshRanking::Indistinguishable() const {
  int number = 0;
  for (const PlannedMesh& one : best) number += one.seconds() <= best[0].seconds() * (1 + error) ? 1 : 0;
  return number;
}

std::string MeshRanking::WhyNot(const PlannedMesh& other, const Cluster& cluster) const {
  if (!other.fits) {
    return absl::StrFormat("does not fit: needs %.3g GB of %.3g", other.price.memory.total() / 1e9,
                           static_cast<double>(cluster.memory) / 1e9);
  }
  return Difference(best[0].price.time, other.price.time);
}

std::string MeshRanking::Why(const Cluster& cluster) const {
  const PlannedMesh& first = best[0];
  const StepTime& time = first.price.time;
  std::string text = absl::StrFormat("A step takes %.4g s, %.0f%% of it computing", time.total(),
                                     100 * time.compute / time.total());
  if (cluster.memory > 0) {
    absl::StrAppend(
        &text, absl::StrFormat("; the fullest rank needs %.3g GB of %.3g", first.price.memory.total() / 1e9,
                               static_cast<double>(cluster.memory) / 1e9));
  }
  absl::StrAppend(&text, ".\n");
  if (best.size() > 1) {
    absl::StrAppend(
        &text, absl::StrFormat("The runner-up (%s) takes %.1f%% longer, %s.\n", best[1].plan.DebugString(),
                               100 * (best[1].seconds() / first.seconds() - 1),
                               Difference(time, best[1].price.time)));
  }
  if (data_parallel.has_value() && data_parallel->plan.DebugString() == first.plan.DebugString()) {
    absl::StrAppend(&text, "It is data parallelism alone.\n");
  } else if (data_parallel.has_value() && !data_parallel_fits) {
    absl::StrAppend(&text,
                    absl::StrFormat("Data parallelism alone does not fit: it needs %.3g GB on every rank.\n",
                                    data_parallel->price.memory.total() / 1e9));
  } else if (data_parallel.has_value() && data_parallel->seconds() < first.seconds()) {
    absl::StrAppend(
        &text, absl::StrFormat("Data parallelism alone, which was not among the choices, takes %.2f times "
                               "as long.\n",
                               data_parallel->seconds() / first.seconds()));
  } else if (data_parallel.has_value()) {
    absl::StrAppend(&text, absl::StrFormat("Data parallelism alone takes %.2f times as long, %s.\n",
                                           data_parallel->seconds() / first.seconds(),
                                           Difference(time, data_parallel->price.time)));
  }
  const int alike = Indistinguishable();
  if (measured_steps == 0) {
    absl::StrAppend(
        &text, absl::StrFormat("Compared with no measured step: an error of %.0f%% is assumed", 100 * error));
  } else {
    absl::StrAppend(&text,
                    absl::StrFormat("Scaled by %d measured steps, with an error of %.0f%%%s", measured_steps,
                                    100 * error, measured_steps == 1 ? " (assumed)" : ""));
  }
  absl::StrAppend(
      &text, alike > 1
                 ? absl::StrFormat("; within it, the first %d of the ranking cannot be told apart.", alike)
                 : std::string("; no other of the ranking comes within it."));
  return text;
}

absl::StatusOr<MeshRanking> RankMeshes(const ModelCost& model, const Work& work, const Cluster& cluster,
                                       const Choices& choices, size_t keep) {
  COHORT_ASSIGN_OR_RETURN(MeshRanking ranking, Search(model, work, cluster, choices, keep).Run());
  ranking.error = policy::kAssumedError;
  return ranking;
}

}  // namespace cohort::parallel::planner
