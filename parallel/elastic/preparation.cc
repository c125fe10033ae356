#include "parallel/elastic/preparation.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "comm/check.h"
#include "parallel/elastic/decide_mesh.h"
#include "parallel/elastic/elastic_mesh.h"
#include "parallel/elastic/warm_up.h"
#include "parallel/global_sums.h"
#include "parallel/reshard/gradient_layout.h"
#include "parallel/share_values.h"
#include "runtime/metrics/chrome_trace.h"

namespace cohort::parallel {
namespace {

using runtime::StepGradients;

std::string TextOf(const StepGradients& gradients, const ElasticCounts& counts) {
  v1::ElasticGradients text;
  text.set_step(counts.step);
  text.set_trained_tokens(counts.tokens);
  text.set_trained_seconds(counts.seconds);
  const runtime::LossSums& sums = gradients.result.sums;
  text.set_loss(sums.loss);
  text.set_aux_loss(sums.aux_loss);
  text.set_tokens(sums.tokens);
  text.set_dropped(sums.dropped);
  for (const std::vector<int64_t>& block : sums.expert_load) {
    text.add_expert_load()->mutable_tokens()->Add(block.begin(), block.end());
  }
  text.set_norm(gradients.norm);
  text.set_seconds(gradients.seconds);
  text.set_waited_seconds(gradients.waited_seconds);
  return text.SerializeAsString();
}

absl::Status ReadText(const std::string& bytes, StepGradients& gradients, ElasticCounts& counts) {
  v1::ElasticGradients text;
  if (!text.ParseFromString(bytes)) return absl::InternalError("gradients' sums that cannot be read");
  counts = {.step = text.step(), .tokens = text.trained_tokens(), .seconds = text.trained_seconds()};
  runtime::LossSums& sums = gradients.result.sums;
  sums.loss = text.loss();
  sums.aux_loss = text.aux_loss();
  sums.tokens = text.tokens();
  sums.dropped = text.dropped();
  for (const auto& block : text.expert_load()) {
    sums.expert_load.emplace_back(block.tokens().begin(), block.tokens().end());
  }
  gradients.norm = text.norm();
  gradients.seconds = text.seconds();
  gradients.waited_seconds = text.waited_seconds();
  return absl::OkStatus();
}

HeldState StateIn(ElasticPart* part) {
  return part == nullptr || part->spare() ? HeldState() : HeldBy(*part->model, part->optimizer);
}

HeldState GradientsIn(ElasticPart* part) {
  return part == nullptr || part->spare() ? HeldState() : GradientsOf(*part->model);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Preparation>> Preparation::Begin(comm::Communicator& world, Standing standing,
                                                                bool newcomer, const ElasticOptions& options,
                                                                runtime::Device& device, ElasticHost& host) {
  std::unique_ptr<Preparation> made(
      new Preparation(std::move(standing), newcomer, world.epoch(), options, device, host));
  COHORT_ASSIGN_OR_RETURN(made->side_, world.Split(0, world.rank()));
  made->making_ = std::async(std::launch::async, [preparation = made.get()] {
    const absl::Status status = preparation->Make();
    preparation->made_.store(true);
    return status;
  });
  return made;
}

Preparation::~Preparation() {
  if (making_.valid()) making_.wait();
  if (moving_.valid()) moving_.wait();
}

absl::Status Preparation::Make() {
  const runtime::TraceScope trace("prepare");
  std::string text;
  absl::Status status;
  if (side_->rank() == 0) {
    const runtime::TraceScope decides("decide mesh");
    std::vector<int> all(static_cast<size_t>(side_->size()));
    std::iota(all.begin(), all.end(), 0);
    const absl::StatusOr<v1::ElasticDecision> decision =
        DecideMesh(*side_, epoch_, all, &standing_.mesh.config(), options_);
    status = decision.status();
    if (decision.ok()) text = decision->SerializeAsString();
  }
  COHORT_RETURN_IF_ERROR(AgreeOnSuccess(*side_, status, "choosing a mesh"));
  COHORT_RETURN_IF_ERROR(ShareValues(*side_, DataType::kU8, text));
  if (!decision_.ParseFromString(text)) return absl::InternalError("a decision that cannot be read");
  return AgreeOnSuccess(*side_, MakeOwn(), "making its part of the next mesh");
}

absl::Status Preparation::MakeOwn() {
  {
    const runtime::TraceScope makes("make part");
    const runtime::LaterLinks::Scope later(links_);
    COHORT_ASSIGN_OR_RETURN(
        next_, MakePart(*side_, decision_, options_.model, device_, [&] { return host_.MakeSource(); }));
  }
  const runtime::TraceScope plans("plan moves");
  COHORT_RETURN_IF_ERROR(PlanMoves());
  COHORT_ASSIGN_OR_RETURN(resharder_, Resharder::Create(*side_));
  if (newcomer_) {
    host_.WarmUp(*side_);
    (void)WarmUp(decision_.mesh(), options_.model, device_, host_.MakeSource());
  }
  return absl::OkStatus();
}

absl::Status Preparation::PlanMoves() {
  COHORT_ASSIGN_OR_RETURN(const Layout before, LayoutOf(standing_.mesh, options_.model));
  COHORT_ASSIGN_OR_RETURN(const Layout after, LayoutOf(decision_.mesh(), options_.model));
  Members members{.before = standing_.numbers,
                  .after = std::vector<int>(static_cast<size_t>(side_->size()), -1)};
  for (int n = 0; n < decision_.world_ranks_size(); ++n) {
    members.after[static_cast<size_t>(decision_.world_ranks(n))] = n;
  }
  const std::vector<int> hosts = HostsOf(*side_);
  COHORT_ASSIGN_OR_RETURN(state_, PlanMove(before, after, members, hosts));
  COHORT_ASSIGN_OR_RETURN(gradients_,
                          PlanMove(GradientLayout(before), GradientLayout(after), members, hosts));
  moved_ = state_.totals();
  return absl::OkStatus();
}

absl::Status Preparation::WaitUntilMade() { return making_.get(); }

void Preparation::BeginMove(ElasticPart* now) {
  old_gradients_ = GradientsIn(now);
  // Where things lie is looked up here: the step that follows binds parameters anew.
  moving_ = std::async(std::launch::async, [this, from = StateIn(now), to = StateIn(next_.get())] {
    const runtime::TraceScope trace("move state");
    return MoveState(*resharder_, state_, from, to, options_.move_timeout);
  });
}

absl::StatusOr<Preparation::Taken> Preparation::TakeOver(const std::optional<StepGradients>& mine,
                                                         const ElasticCounts& counts) {
  // Newcomers wait here for the state, then for the step of the others.
  {
    const runtime::TraceScope trace("wait for state");
    COHORT_RETURN_IF_ERROR(moving_.get());
  }
  Taken taken;
  std::string text = mine.has_value() ? TextOf(*mine, counts) : std::string();
  COHORT_RETURN_IF_ERROR(ShareValues(*side_, DataType::kU8, text, standing_.world_ranks[0]));
  COHORT_RETURN_IF_ERROR(ReadText(text, taken.gradients, taken.counts));
  const runtime::TraceScope trace("move gradients");
  COHORT_RETURN_IF_ERROR(
      MoveState(*resharder_, gradients_, old_gradients_, GradientsIn(next_.get()), options_.move_timeout));
  if (!next_->spare()) next_->optimizer.step = taken.counts.step;
  const runtime::TraceScope connects("connect devices");
  COHORT_RETURN_IF_ERROR(links_.Connect());
  return taken;
}

std::vector<int> Preparation::spares() const {
  std::vector<int> spares;
  const auto& ranks = decision_.world_ranks();
  for (int rank = 0; rank < side_->size(); ++rank) {
    if (std::find(ranks.begin(), ranks.end(), rank) == ranks.end()) spares.push_back(rank);
  }
  return spares;
}

}  // namespace cohort::parallel
