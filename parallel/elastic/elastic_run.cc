#include "parallel/elastic/elastic_run.h"

#include <utility>

#include "absl/time/clock.h"
#include "comm/check.h"
#include "parallel/elastic/change.h"
#include "parallel/elastic/edit_world.h"
#include "parallel/elastic/elastic_mesh.h"
#include "parallel/elastic/policy.h"
#include "parallel/elastic/spares.h"
#include "parallel/elastic/state_check.h"
#include "runtime/metrics/chrome_trace.h"

namespace cohort::parallel {
namespace {

using runtime::StepCallbacks;

// Whether other ranks may be the cause, and others of them the remedy.
bool MayBePeers(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsCancelled(status);
}

class ElasticRun {
 public:
  ElasticRun(std::shared_ptr<comm::Communicator> world, const ElasticOptions& options,
             runtime::Device& device, ElasticHost& host)
      : world_(std::move(world)), options_(options), host_(host), changer_(*world_, options, device, host) {}

  absl::StatusOr<ElasticEnd> Run() {
    absl::Status status = Change("the start", {}, absl::Now());
    for (int failed = 0;;) {
      if (status.ok()) {
        failed = 0;
        if (end_) return *end_;
        status = Train();
        if (status.ok() && end_) return *end_;
      }
      const absl::Time since = absl::Now();
      if (!status.ok()) {
        if (!MayBePeers(status) || ++failed > elastic_policy::kFailedChanges) return status;
        world_->Abort(status);
      }
      status = EditAndChange(status.ok() ? "at a boundary" : std::string(status.message()), since);
    }
  }

 private:
  // Steps until the end (end_) or a boundary at which ranks change.
  absl::Status Train() {
    ElasticPart& part = changer_.part();
    if (part.spare()) {
      COHORT_ASSIGN_OR_RETURN(
          const StepCallbacks::Next next,
          WaitAsSpare(*world_, changer_.world_rank(0), [&] { return host_.AskedToLeave(); }));
      if (next == StepCallbacks::Next::kEnd) end_ = ElasticEnd::kDone;
      return absl::OkStatus();
    }
    COHORT_ASSIGN_OR_RETURN(const runtime::StepLoopResult result,
                            runtime::RunSteps(*part.model, part.optimizer, options_.loop, Callbacks(part)));
    if (!result.paused) end_ = ElasticEnd::kDone;
    return absl::OkStatus();
  }

  StepCallbacks Callbacks(ElasticPart& part) {
    StepCallbacks callbacks;
    callbacks.on_step = [&](const runtime::StepReport& report) { host_.OnStep(report); };
    callbacks.on_evaluation = [&](int64_t step, const auto& evaluation) {
      host_.OnEvaluation(step, evaluation);
    };
    callbacks.save = [&](int64_t) {
      const runtime::TraceScope trace("checkpoint");
      return host_.Save(part, changer_.counts());
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
      if (options_.check_every > 0 && report.step % options_.check_every == 0) {
        COHORT_RETURN_IF_ERROR(Check(part, report.step));
      }
      return host_.AfterUpdate(part, changer_.counts());
    };
    callbacks.pause = [&] {
      bool pause = host_.NewcomersWait() || host_.AskedToLeave();
      if (part.group->rank() > 0) return pause;
      const absl::StatusOr<bool> spares = SparesAsk(*world_, changer_.spares());
      spares_ = spares.status();
      return pause || spares.value_or(false);
    };
    callbacks.on_boundary = [&](int64_t, StepCallbacks::Next next) {
      COHORT_RETURN_IF_ERROR(spares_);
      return part.group->rank() > 0 ? absl::OkStatus() : TellSpares(*world_, changer_.spares(), next);
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

  // Who is there, and what they do from now on.
  absl::Status EditAndChange(const std::string& cause, absl::Time since) {
    const runtime::TraceScope trace("edit");
    const std::vector<int> before = world_->members();
    const auto change = EditWorld(*world_, host_, options_.patience);
    COHORT_RETURN_IF_ERROR(change.status());
    Coming coming;
    for (const int rank : change->lost) coming.lost.push_back(before[static_cast<size_t>(rank)]);
    for (int rank = 0; rank < change->size; ++rank) {
      if (change->previous_rank[static_cast<size_t>(rank)] < 0)
        coming.joined.push_back(world_->members()[static_cast<size_t>(rank)]);
    }
    return Change(cause, coming, since);
  }

  absl::Status Change(const std::string& cause, const Coming& coming, absl::Time since) {
    COHORT_ASSIGN_OR_RETURN(const Changed changed, changer_.Run(cause, coming, since));
    if (changed == Changed::kAllLeave) {
      ElasticPart& part = changer_.part();
      if (!part.spare()) COHORT_RETURN_IF_ERROR(host_.Save(part, changer_.counts()));
      end_ = ElasticEnd::kStopped;
    } else if (changed != Changed::kAllStay) {
      const bool leaves = changed == Changed::kThisLeaves;
      const auto gone = world_->Shrink({.patience = options_.patience, .leave = leaves});
      if (!leaves) {
        COHORT_RETURN_IF_ERROR(gone.status());
        host_.OnLeft(gone->epoch, changer_.staying());
        return absl::OkStatus();
      }
      end_ = ElasticEnd::kLeft;
    }
    return absl::OkStatus();
  }

  const std::shared_ptr<comm::Communicator> world_;
  const ElasticOptions& options_;
  ElasticHost& host_;
  Changer changer_;
  absl::Status spares_;
  std::optional<ElasticEnd> end_;
};

}  // namespace

absl::StatusOr<ElasticEnd> RunElastic(std::shared_ptr<comm::Communicator> world,
                                      const ElasticOptions& options, runtime::Device& device,
                                      ElasticHost& host) {
  return ElasticRun(std::move(world), options, device, host).Run();
}

}  // namespace cohort::parallel
