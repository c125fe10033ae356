#include "parallel/elastic/elastic_run.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "parallel/elastic/change.h"
#include "parallel/elastic/counted_members.h"
#include "parallel/elastic/edit_world.h"
#include "parallel/elastic/elastic_mesh.h"
#include "parallel/elastic/greeting.h"
#include "parallel/elastic/policy.h"
#include "parallel/elastic/preparation.h"
#include "parallel/elastic/spares.h"
#include "parallel/elastic/state_check.h"
#include "parallel/global_sums.h"
#include "runtime/metrics/chrome_trace.h"

namespace cohort::parallel {
namespace {

using runtime::StepCallbacks;
using runtime::StepGradients;

// Whether other ranks may be the cause, and others of them the remedy.
bool MayBePeers(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsCancelled(status);
}

class ElasticRun {
 public:
  ElasticRun(std::shared_ptr<comm::Communicator> world, const ElasticOptions& options,
             runtime::Device& device, ElasticHost& host)
      : world_(std::move(world)),
        options_(options),
        device_(device),
        host_(host),
        changer_(*world_, options, device, host),
        counted_(world_->epoch() == 0 ? CountedMembers::OfFounder() : CountedMembers::OfNewcomer()) {}

  absl::StatusOr<ElasticEnd> Run() {
    absl::Status status = Meet("the start", {}, absl::Now(), /*well=*/true);
    for (int failed = 0;;) {
      if (status.ok()) {
        failed = 0;
        if (end_) return End();
        status = Train();
        if (status.ok() && end_) return End();
        if (status.ok()) status = AtBoundary();
        if (status.ok()) continue;
      }
      const absl::Time since = absl::Now();
      recovers_ = true;
      if (!MayBePeers(status) || ++failed > elastic_policy::kFailedChanges) {
        if (next_ != nullptr) next_->Abort(status);
        return status;
      }
      world_->Abort(status);
      next_.reset();
      begun_.reset();
      entered_.reset();
      status = EditAndMeet(std::string(status.message()), since, /*well=*/false);
    }
  }

 private:
  ElasticEnd End() {
    // A mesh that nobody needs is not waited for.
    if (next_ != nullptr) next_->Abort(absl::CancelledError("the training is over"));
    return *end_;
  }

  // The time limit is one of the whole run.
  runtime::StepLoopOptions Loop() const {
    runtime::StepLoopOptions loop = options_.loop;
    loop.limit = std::max(until_ - absl::Now(), absl::ZeroDuration());
    return loop;
  }

  bool trains() { return changer_.part() != nullptr && !changer_.part()->spare(); }

  // Steps until the end (end_) or a boundary at which something is to be done.
  absl::Status Train() {
    if (!trains()) {
      int heard = 0;
      COHORT_ASSIGN_OR_RETURN(const StepCallbacks::Next next,
                              WaitAsSpare(*world_, changer_.world_rank(0), elastic_policy::kSpareWait, [&] {
                                // After a step of the others the state of the mesh before is whole on this one.
                                if (heard++ > 1) changer_.ForgetBefore();
                                host_.AfterSpareStep();
                                return host_.AskedToLeave();
                              }));
      if (next == StepCallbacks::Next::kEnd) end_ = ElasticEnd::kDone;
      return absl::OkStatus();
    }
    ElasticPart& part = *changer_.part();
    const std::optional<StepGradients> begun = std::exchange(begun_, std::nullopt);
    const bool recovers = std::exchange(recovers_, false);
    if (recovers && !begun.has_value() && part.optimizer.step >= options_.loop.steps) return Finish(part);
    COHORT_ASSIGN_OR_RETURN(const runtime::StepLoopResult result,
                            runtime::RunSteps(*part.model, part.optimizer, Loop(), Callbacks(part), nullptr,
                                              begun.has_value() ? &*begun : nullptr));
    if (!result.paused) end_ = ElasticEnd::kDone;
    return absl::OkStatus();
  }

  // Ranks were lost after the last step: what follows it is done by those who are left.
  absl::Status Finish(ElasticPart& part) {
    COHORT_RETURN_IF_ERROR(host_.Save(part, changer_.counts(), /*more=*/false));
    if (part.group->rank() == 0) {
      COHORT_RETURN_IF_ERROR(SparesAsk(*world_, changer_.spares(), options_.patience).status());
      COHORT_RETURN_IF_ERROR(
          TellSpares(*world_, changer_.spares(), options_.patience, StepCallbacks::Next::kEnd));
    }
    end_ = ElasticEnd::kDone;
    return absl::OkStatus();
  }

  // All ranks have left their loops.
  absl::Status AtBoundary() {
    const absl::Time since = absl::Now();
    if (next_ == nullptr) return EditAndMeet("at a boundary", since, /*well=*/true);
    absl::Status made;
    counted_.Enter();
    COHORT_RETURN_IF_ERROR(AgreeThatItIsMade(made));
    if (made.ok()) return TakeOver(since);
    // The mesh that trains goes on: newcomers may be gone, and nobody else.
    counted_.Stay();
    next_->Abort(absl::AbortedError(made.message()));
    next_.reset();
    entered_.reset();
    unmade_ = true;
    return EditAndMeet(std::string(made.message()), since, /*well=*/true);
  }

  // What the ranks of the mesh know of it counts for all.
  absl::Status AgreeThatItIsMade(absl::Status& made) {
    // Who wants to go does not wait for it.
    const bool leaves = host_.AskedToLeave();
    if (leaves) next_->Abort(absl::CancelledError("a rank leaves"));
    absl::Status mine = next_->WaitUntilMade();
    if (leaves) mine = absl::CancelledError("a rank leaves before the next mesh is made");
    const Standing& standing = next_->standing();
    int64_t failed = mine.ok() ? 0 : 1;
    if (trains()) {
      comm::Communicator& group = *changer_.part()->group;
      COHORT_RETURN_IF_ERROR(
          group.AllReduce(&failed, &failed, 1, DataType::kI64, comm::ReduceOp::kMax).Wait());
      if (group.rank() == 0) {
        const absl::Status told = TellWaiting(*world_, standing.waiting, options_.patience, failed);
        if (failed == 0) COHORT_RETURN_IF_ERROR(told);  // otherwise some of them are gone, perhaps
      }
    } else {
      COHORT_ASSIGN_OR_RETURN(failed,
                              HearAsWaiting(*world_, standing.world_ranks[0], elastic_policy::kSpareWait));
      if (failed == 0) COHORT_RETURN_IF_ERROR(mine);
    }
    made = failed == 0 || !mine.ok()
               ? mine
               : absl::UnavailableError("another rank could not make its part of the next mesh");
    return absl::OkStatus();
  }

  // A step of which the old mesh computes the gradients, while the state moves, and the new one makes the update.
  absl::Status TakeOver(absl::Time since) {
    const runtime::TraceScope trace("take over");
    next_->BeginMove(changer_.part());
    host_.OnMove(*entered_);
    entered_->seconds += absl::ToDoubleSeconds(absl::Now() - since);
    std::optional<StepGradients> gradients;
    if (trains()) {
      ElasticPart& part = *changer_.part();
      StepCallbacks callbacks = Callbacks(part);
      callbacks.hand_over = [&](StepGradients step) {
        gradients = std::move(step);
        return absl::OkStatus();
      };
      COHORT_RETURN_IF_ERROR(runtime::RunSteps(*part.model, part.optimizer, Loop(), callbacks).status());
      COHORT_CHECK(gradients.has_value(), "a loop was left at its last step to make another one");
    }
    since = absl::Now();
    absl::StatusOr<Preparation::Taken> taken = next_->TakeOver(gradients, changer_.counts());
    if (!taken.ok()) {
      // Whatever it was, all ranks go on from the old mesh.
      return absl::AbortedError(absl::StrCat("entering the next mesh: ", taken.status().message()));
    }
    const v1::ElasticDecision& decision = next_->decision();
    changer_.SetPlaces({decision.world_ranks().begin(), decision.world_ranks().end()}, next_->spares());
    changer_.Adopt(next_->TakePart(), taken->counts);
    counted_.Entered();
    entered_->mesh = DebugString(changer_.part()->mesh, options_.model);
    entered_->why = decision.why();
    entered_->moved = next_->moved();
    next_.reset();
    begun_ = std::move(taken->gradients);
    entered_->seconds += absl::ToDoubleSeconds(absl::Now() - since);
    return trains() ? absl::OkStatus() : TellHost(*changer_.part());
  }

  // What has been entered is what runs.
  absl::Status TellHost(ElasticPart& part) {
    ElasticChange change = *std::exchange(entered_, std::nullopt);
    change.counts = changer_.counts();
    return host_.OnChange(part, change);
  }

  StepCallbacks Callbacks(ElasticPart& part) {
    StepCallbacks callbacks;
    callbacks.on_step = [&](const runtime::StepReport& report) { host_.OnStep(report); };
    callbacks.on_evaluation = [&](int64_t step, const auto& evaluation) {
      host_.OnEvaluation(step, evaluation);
    };
    callbacks.save = [&](int64_t, bool more) {
      const runtime::TraceScope trace("checkpoint");
      return host_.Save(part, changer_.counts(), more);
    };
    callbacks.on_save_failed = [&](int64_t step, const absl::Status& why) { host_.OnSaveFailed(step, why); };
    callbacks.after_gradients = [&] { return host_.AfterGradients(); };
    callbacks.before_update = [&] {
      // Every rank has come as far, so every rank has the state of this mesh.
      changer_.ForgetBefore();
      return host_.BeforeUpdate();
    };
    callbacks.after_update = [&](const runtime::StepReport& report) {
      changer_.Count(report);
      host_.OnUpdate(report);
      if (options_.check_every > 0 && report.step % options_.check_every == 0) {
        COHORT_RETURN_IF_ERROR(Check(part, report.step));
      }
      // The first update of a mesh that was entered in the middle of a step.
      if (entered_.has_value() && next_ == nullptr) return TellHost(part);
      return host_.AfterUpdate(part, changer_.counts());
    };
    callbacks.pause = [&] {
      const bool leaves = host_.AskedToLeave();
      if (part.group->rank() > 0) return leaves || (next_ == nullptr && host_.NewcomersWait());
      const absl::StatusOr<bool> spares = SparesAsk(*world_, changer_.spares(), options_.patience);
      spares_ = spares.status();
      // Those for whom the next mesh is made may be gone, or hang: nobody waits for them in its preparation either.
      if (next_ != nullptr && !spares_.ok()) next_->Abort(spares_);
      if (leaves || spares.value_or(false)) return true;
      // Until the next mesh is made, who comes waits.
      if (next_ != nullptr) return !spares_.ok() || (next_->made() && host_.MayEnter());
      return host_.NewcomersWait();
    };
    callbacks.on_boundary = [&](int64_t, StepCallbacks::Next next) {
      if (part.group->rank() > 0) return absl::OkStatus();
      if (next_ == nullptr) COHORT_RETURN_IF_ERROR(spares_);
      const absl::Status told = TellSpares(*world_, changer_.spares(), options_.patience, next);
      // A newcomer that is lost is noticed at the next boundary.
      return next_ == nullptr ? told : absl::OkStatus();
    };
    return callbacks;
  }

  absl::Status Check(ElasticPart& part, int64_t step) {
    const runtime::TraceScope trace("check");
    COHORT_ASSIGN_OR_RETURN(const Layout layout, LayoutOf(part.mesh, options_.model));
    COHORT_ASSIGN_OR_RETURN(const StateCheck check, CheckState(*part.group, layout, *part.model,
                                                               part.optimizer, options_.move_timeout));
    if (!check.words.empty()) host_.OnRepair(step, check.words);
    return absl::OkStatus();
  }

  // Who is there, and what they do from now on. `well`: this rank's part of the training can go on as it is.
  absl::Status EditAndMeet(const std::string& cause, absl::Time since, bool well) {
    const runtime::TraceScope trace("edit");
    const std::vector<int> before = world_->members();
    const auto change = EditWorld(*world_, host_, options_.patience, counted_);
    COHORT_RETURN_IF_ERROR(change.status());
    Coming coming;
    for (const int rank : change->lost) coming.lost.push_back(before[static_cast<size_t>(rank)]);
    for (int rank = 0; rank < change->size; ++rank) {
      if (change->previous_rank[static_cast<size_t>(rank)] < 0)
        coming.joined.push_back(world_->members()[static_cast<size_t>(rank)]);
    }
    if (!coming.joined.empty()) counted_.Came(*std::min_element(coming.joined.begin(), coming.joined.end()));
    // A mesh that could not be made beside this one, and not because newcomers are gone again: all try it together.
    if (std::exchange(unmade_, false) && coming.lost.empty()) well = false;
    for (const int member : coming.lost) {
      well &= std::find(newcomers_.begin(), newcomers_.end(), member) != newcomers_.end();
    }
    return Meet(cause, coming, since, well);
  }

  absl::Status Meet(const std::string& cause, const Coming& coming, absl::Time since, bool well) {
    COHORT_ASSIGN_OR_RETURN(const std::vector<std::string> texts,
                            GatherStrings(*world_, Greeting(well).SerializeAsString()));
    std::vector<v1::ElasticGreeting> greetings(texts.size());
    for (size_t rank = 0; rank < texts.size(); ++rank) {
      if (!greetings[rank].ParseFromString(texts[rank])) {
        return absl::InternalError(
            absl::StrCat("rank ", rank, " says what this program does not understand"));
      }
    }
    std::vector<std::string> names;
    for (const v1::ElasticGreeting& greeting : greetings) names.push_back(greeting.name());
    host_.OnEdit(world_->epoch(), names);
    std::optional<Standing> standing = StandingOf(greetings);
    newcomers_.clear();
    if (!standing.has_value()) return Change(cause, coming, since);
    changer_.SetPlaces(standing->world_ranks, standing->waiting);
    if (standing->newcomers.empty()) return absl::OkStatus();  // they are gone again

    entered_.emplace();
    entered_->epoch = world_->epoch();
    entered_->member = world_->members()[static_cast<size_t>(world_->rank())];
    entered_->cause = cause;
    entered_->lost = coming.lost;
    entered_->beside = true;
    entered_->names = std::move(names);
    for (const int rank : standing->newcomers) {
      newcomers_.push_back(world_->members()[static_cast<size_t>(rank)]);
    }
    counted_.Hear(*std::min_element(newcomers_.begin(), newcomers_.end()));
    entered_->joined = newcomers_;
    COHORT_ASSIGN_OR_RETURN(next_, Preparation::Begin(*world_, *std::move(standing),
                                                      changer_.part() == nullptr, options_, device_, host_));
    entered_->seconds = absl::ToDoubleSeconds(absl::Now() - since);
    return absl::OkStatus();
  }

  v1::ElasticGreeting Greeting(bool well) {
    v1::ElasticGreeting greeting;
    greeting.set_name(host_.name());
    greeting.set_leaves(host_.AskedToLeave());
    const ElasticPart* part = changer_.part();
    greeting.set_is_new(part == nullptr);
    if (part == nullptr) return greeting;
    greeting.set_goes_on(well);
    greeting.set_epoch(part->mesh.epoch());
    greeting.set_mesh_rank(part->spare() ? -1 : part->group->rank());
    greeting.set_step(part->optimizer.step);
    if (greeting.mesh_rank() == 0) *greeting.mutable_mesh() = part->mesh;
    return greeting;
  }

  absl::Status Change(const std::string& cause, const Coming& coming, absl::Time since) {
    counted_.Enter();
    COHORT_ASSIGN_OR_RETURN(const Changed changed, changer_.Run(cause, coming, since));
    counted_.Entered();
    if (changed == Changed::kAllLeave) {
      if (trains()) COHORT_RETURN_IF_ERROR(host_.Save(*changer_.part(), changer_.counts(), /*more=*/false));
      end_ = ElasticEnd::kStopped;
    } else if (changed != Changed::kAllStay) {
      const bool leaves = changed == Changed::kThisLeaves;
      const auto gone = world_->Shrink({.patience = options_.patience, .leave = leaves});
      if (!leaves) {
        COHORT_RETURN_IF_ERROR(gone.status());
        changer_.Renumber(gone->previous_rank);
        host_.OnLeft(gone->epoch, changer_.staying());
        return absl::OkStatus();
      }
      end_ = ElasticEnd::kLeft;
    }
    return absl::OkStatus();
  }

  const std::shared_ptr<comm::Communicator> world_;
  const ElasticOptions& options_;
  const absl::Time until_ = absl::Now() + options_.loop.limit;
  runtime::Device& device_;
  ElasticHost& host_;
  Changer changer_;
  CountedMembers counted_;
  absl::Status spares_;
  // The mesh that is made beside this one; the change that it will be, until it has made an update; the step that is
  // handed to it; the members for whom it is made.
  std::unique_ptr<Preparation> next_;
  std::optional<ElasticChange> entered_;
  std::optional<StepGradients> begun_;
  std::vector<int> newcomers_;
  bool unmade_ = false;    // it could not be made
  bool recovers_ = false;  // something has failed since the last step loop began
  std::optional<ElasticEnd> end_;
};

}  // namespace

absl::StatusOr<ElasticEnd> RunElastic(std::shared_ptr<comm::Communicator> world,
                                      const ElasticOptions& options, runtime::Device& device,
                                      ElasticHost& host) {
  return ElasticRun(std::move(world), options, device, host).Run();
}

}  // namespace cohort::parallel
