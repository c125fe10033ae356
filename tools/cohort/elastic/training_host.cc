#include "tools/cohort/elastic/training_host.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "parallel/elastic/elastic_mesh.h"
#include "runtime/config/yaml_message.h"
#include "runtime/elastic/coordinator/policy.h"
#include "runtime/file.h"
#include "tools/cohort/loader_source.h"
#include "tools/cohort/own_command.h"
#include "tools/cohort/world.h"

namespace cohort::tools {

using parallel::ElasticChange;
using parallel::ElasticCounts;
using parallel::ElasticEnd;
using parallel::ElasticPart;

namespace {

std::string Words(const ElasticChange& change) {
  std::string words;
  const auto list = [&](const char* what, const std::vector<int>& members) {
    if (members.empty()) return;
    absl::StrAppend(&words, words.empty() ? "" : "; ", what, " ", absl::StrJoin(members, ", "));
  };
  list("lost", change.lost);
  list("left", change.left);
  list("joined", change.joined);
  if (words.empty()) words = change.cause;
  return absl::StrFormat("step %d  epoch %d: %s. %s (%s)%s, %.1f MB moved%s %.3f s", change.counts.step,
                         change.epoch, words, change.mesh, change.why,
                         change.from_disk ? "; from the newest checkpoint" : "",
                         static_cast<double>(change.moved.moved()) / 1e6,
                         change.beside ? " beside a step; stood still for" : ", in", change.seconds);
}

}  // namespace

TrainingHost::TrainingHost(const v1::TrainConfig& config, const runtime::ModelConfig& model,
                           const TrainingData& data, runtime::Device& device, double flops, ElasticJob& job,
                           bool begun)
    : config_(config),
      model_(model),
      data_(data),
      device_(device),
      flops_(flops),
      job_(job),
      tie_(job.client()),
      state_(config, model, data),
      snapshots_(
          {.job = job.id(), .command = {OwnCommand(), "keeper"}},
          {.every = config.elastic().snapshot_every(),
           .parity = {.data = config.elastic().parity_data(), .lost_hosts = config.elastic().lost_hosts()},
           .saves = config.checkpoint().every() > 0}),
      loaded_(begun) {}

std::function<bool(const std::vector<int>&)> TrainingHost::Tie(uint32_t epoch,
                                                               const std::vector<int>& members) {
  return tie_.Claim(epoch, members);
}

bool TrainingHost::NewcomersWait() {
  if (!first_) return false;  // one of the ranks looks
  job_.KeepCoordinator();
  // What the lease's thread has last heard may be old: those may be in already.
  if (job_.client().standing().newcomers_waiting == 0) return false;
  const auto waiting = job_.board()->Waiting();
  return waiting.ok() && !waiting->empty();
}

bool TrainingHost::MayEnter() {
  // A checkpoint that is being written would be given up: they wait for that one, and for no other.
  if (snapshots_.saving() < 0) return true;
  if (awaited_save_ < 0) awaited_save_ = snapshots_.saving();
  return snapshots_.saving() != awaited_save_;
}

bool TrainingHost::AskedToLeave() {
  return StopRequested()->load() || job_.client().standing().leave_requested || IsEvicted();
}

std::unique_ptr<parallel::BatchSource> TrainingHost::MakeSource() {
  return MakeLoaderSource(data_.training, data_.held_out, device_);
}

absl::StatusOr<ElasticCounts> TrainingHost::Load(ElasticPart& part) {
  // After ranks were lost with their state the newest checkpoint counts, whatever the user began from.
  const bool resume = config_.checkpoint().resume() || std::exchange(loaded_, true);
  loaded_ = true;
  COHORT_RETURN_IF_ERROR(state_.Load(*part.model, part.optimizer, resume));
  return ElasticCounts{.step = part.optimizer.step, .tokens = state_.tokens(), .seconds = state_.seconds()};
}

absl::Status TrainingHost::Save(ElasticPart& part, const ElasticCounts& counts, bool more) {
  COHORT_RETURN_IF_ERROR(tie_.Hold());
  TellSaved(snapshots_.Saved(/*wait=*/true));
  state_.SetCounts(counts.tokens, counts.seconds);
  if (more && snapshots_.saves()) {
    snapshots_.Save(part, counts, state_.Writer(counts.step));
    return absl::OkStatus();
  }
  const absl::Time begin = absl::Now();
  COHORT_ASSIGN_OR_RETURN(std::string path, state_.Save(*part.model, part.optimizer, counts.step));
  TellSaved({{counts.step, std::move(path), absl::ToDoubleSeconds(absl::Now() - begin)}});
  return absl::OkStatus();
}

absl::Status TrainingHost::BeforeUpdate() {
  snapshots_.BeforeUpdate();
  return tie_.Hold();
}

absl::Status TrainingHost::AfterUpdate(ElasticPart&, const ElasticCounts& counts) {
  snapshots_.AfterUpdate(counts);
  if (const auto news = snapshots_.TakeKeeperNews()) {
    job_.client().Tell(v1::EVENT_KIND_NOTE, counts.step, absl::StrCat(name(), ": ", *news));
  }
  TellSaved(snapshots_.Saved(/*wait=*/false));
  return absl::OkStatus();
}

void TrainingHost::OnMove(const ElasticChange& change) {
  if (!first_) return;
  job_.client().Tell(v1::EVENT_KIND_RECONFIGURATION_BEGUN, step_,
                     absl::StrCat("members ", absl::StrJoin(change.joined, ", "),
                                  " enter: the state moves while a step is made"));
}

absl::Status TrainingHost::OnChange(ElasticPart& part, const ElasticChange& change) {
  first_ = !part.spare() && part.group->rank() == 0;
  loaded_ = true;
  tie_.SetGroup(change.epoch, change.names);
  awaited_save_ = -1;
  COHORT_RETURN_IF_ERROR(snapshots_.Follow(part, change.member, change.counts));
  const auto saved = snapshots_.Saved(/*wait=*/false);  // told by one rank
  // Others have been compared on another mesh.
  computed_.clear();
  watch_.Reset();
  stage_ = 0;
  if (!part.spare()) {
    COHORT_ASSIGN_OR_RETURN(const parallel::Mesh mesh, parallel::MeshOf(part.mesh, model_));
    stage_ = mesh.Coordinate(parallel::Axis::kPipeline, part.group->rank());
  }
  if (log_ != nullptr) log_->End();
  log_.reset();
  if (!first_) return absl::OkStatus();
  COHORT_RETURN_IF_ERROR(OpenLog(part, change));
  told_ = {.from = change.epoch,
           .to = change.epoch + 1,
           .members = change.names,
           .arrangement = absl::Base64Escape(part.mesh.SerializeAsString()),
           .step = change.counts.step + 1,
           .why = change.cause};
  job_.client().RecordEpoch(told_);
  const std::string words = Words(change);
  log_->Note(words);
  TellSaved(saved);
  if (!snapshots_.problem().ok()) {
    log_->Note(absl::StrCat("no snapshots: ", snapshots_.problem().message()));
  }
  if (change.epoch > 0) {
    job_.client().Tell(v1::EVENT_KIND_RECONFIGURATION_ENDED, change.counts.step, words, change.seconds);
  }
  return absl::OkStatus();
}

void TrainingHost::OnRepair(int64_t step, const std::string& words) {
  if (!first_) return;
  log_->Note(absl::StrCat("step ", step, "  repaired: ", words));
  job_.client().Tell(v1::EVENT_KIND_REPAIR, step, words);
}

void TrainingHost::OnLeft(uint32_t epoch, const std::vector<std::string>& names) {
  tie_.SetGroup(epoch, names);
  if (!first_) return;
  told_.from = told_.to;
  told_.to = epoch + 1;
  told_.members = names;
  told_.why = "members left";
  job_.client().RecordEpoch(told_);
}

void TrainingHost::OnStep(const runtime::StepReport& report) {
  if (log_ != nullptr) log_->Step(report);
  v1::StepReport told;
  told.set_step(report.step);
  const double computing = std::max(0.0, report.seconds - report.waited_seconds);
  computed_.push_back(static_cast<float>(computing));
  if (computed_.size() > cluster::policy::kMaxRecentSteps) computed_.pop_front();
  told.set_compute_seconds(computing);
  told.set_wait_seconds(report.seconds - computing);
  told.mutable_recent_compute_seconds()->Add(computed_.begin(), computed_.end());
  told.set_stage(stage_);
  told.set_unusual(watch_.Unusual(report.seconds));
  told.set_tokens(first_ ? report.tokens : 0);
  job_.client().SetReport(told);
  step_ = report.step;
}

void TrainingHost::OnEvaluation(int64_t step, const runtime::Trainable::Evaluation& evaluation) {
  if (log_ != nullptr) log_->Evaluation(step, evaluation);
}

void TrainingHost::OnSaveFailed(int64_t step, const absl::Status& status) {
  if (log_ == nullptr) return;
  const std::string words =
      absl::StrFormat("could not be saved, training goes on: %s", std::string(status.message()));
  log_->Note(absl::StrFormat("step %d  %s", step, words));
  job_.client().Tell(v1::EVENT_KIND_NOTE, step, words);
}

void TrainingHost::End(parallel::ElasticEnd end) {
  if (log_ != nullptr) log_->End();
  if (end == ElasticEnd::kLeft) {
    std::printf("%s has left; the others go on\n", name().c_str());
  } else if (first_) {
    std::printf("%s; the model is in %s/checkpoints/latest\n", end == ElasticEnd::kDone ? "done" : "stopped",
                config_.output().c_str());
    snapshots_.End();
  }
  std::fflush(stdout);
  (void)job_.client().Flush(absl::Now() + absl::Seconds(2));
  (void)job_.client().Leave(evicted_                   ? "a straggler, evicted"
                            : end == ElasticEnd::kLeft ? "asked to leave"
                                                       : "the training is over",
                            absl::Now() + absl::Seconds(2));
  if (end != ElasticEnd::kLeft && first_) job_.End();
}

bool TrainingHost::IsEvicted() {
  const v1::ElasticSection& elastic = config_.elastic();
  if (evicted_ || elastic.stragglers() != "evict") return evicted_;
  const cluster::Standing standing = job_.client().standing();
  const int64_t since = standing.straggler_since;
  if (since == 0 || step_ - since < elastic.straggler_steps()) return false;
  evicted_ = true;
  std::string words = absl::StrCat(name(), " goes: since step ", since, " it ", standing.straggler_words,
                                   ", and elastic.stragglers is evict");
  if (elastic.straggler_return_seconds() > 0) {
    absl::StrAppend(&words, "; it asks to be taken in again in ", elastic.straggler_return_seconds(), " s");
  }
  job_.client().Tell(v1::EVENT_KIND_EVICTION, step_, words, 0, name());
  return true;
}

absl::Status TrainingHost::OpenLog(const ElasticPart& part, const ElasticChange& change) {
  COHORT_ASSIGN_OR_RETURN(
      log_, RunLog::Open(part.mesh.config(),
                         {.rank = 0,
                          .resumed_step = change.counts.step,
                          .peak_flops = flops_ * part.group->size(),
                          .flops_per_token = model_.TrainFlopsPerToken(config_.data().sequence_length())}));
  if (updated_) log_->Unwritten(*updated_);
  const absl::Status written =
      runtime::WriteFileDurably(config_.output() + "/config.yaml", runtime::ToYaml(part.mesh.config()));
  if (!written.ok()) log_->Note(absl::StrCat("config.yaml is of another mesh: ", written.message()));
  return absl::OkStatus();
}

void TrainingHost::TellSaved(const std::optional<parallel::BackgroundSave::Outcome>& saved) {
  if (!saved || !first_) return;
  if (!saved->path.ok()) return OnSaveFailed(saved->step, saved->path.status());
  log_->Note(absl::StrFormat("step %d  saved %s", saved->step, *saved->path));
  job_.client().Tell(v1::EVENT_KIND_CHECKPOINT, saved->step, *saved->path, saved->seconds);
}

}  // namespace cohort::tools
