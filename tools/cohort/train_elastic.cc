#include "tools/cohort/train_elastic.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/policy.h"
#include "parallel/elastic/elastic_mesh.h"
#include "parallel/elastic/elastic_run.h"
#include "parallel/elastic/part_snapshots.h"
#include "runtime/config/yaml_message.h"
#include "runtime/elastic/coordinator/policy.h"
#include "runtime/elastic/coordinator/tie_bond.h"
#include "runtime/file.h"
#include "runtime/metrics/activity.h"
#include "runtime/ops/machine_rates.h"
#include "tools/cohort/elastic_job.h"
#include "tools/cohort/loader_source.h"
#include "tools/cohort/run_log.h"
#include "tools/cohort/training_setup.h"
#include "tools/cohort/training_state.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

using parallel::ElasticChange;
using parallel::ElasticCounts;
using parallel::ElasticEnd;
using parallel::ElasticPart;

constexpr absl::Duration kRejoin = absl::Minutes(5), kRejoinPause = absl::Seconds(1);

absl::Duration TimeoutOf(const v1::TrainConfig& config) {
  return config.parallel().has_timeout_seconds() ? absl::Seconds(config.parallel().timeout_seconds())
                                                 : comm::policy::kTimeout;
}

// One process: what the run asks of it.
class TrainingHost final : public parallel::ElasticHost {
 public:
  // `begun`: the training has begun before this process came to it.
  TrainingHost(const v1::TrainConfig& config, const runtime::ModelConfig& model, const TrainingData& data,
               double flops, ElasticJob& job, bool begun)
      : config_(config),
        model_(model),
        data_(data),
        flops_(flops),
        job_(job),
        tie_(job.client()),
        state_(config, model, data),
        snapshots_(
            {.job = job.id(),
             .command = {std::filesystem::read_symlink("/proc/self/exe").string(), "keeper"}},
            {.every = config.elastic().snapshot_every(),
             .parity = {.data = config.elastic().parity_data(), .lost_hosts = config.elastic().lost_hosts()},
             .saves = config.checkpoint().every() > 0}),
        loaded_(begun) {}

  std::string name() override { return job_.client().name(); }
  std::shared_ptr<comm::JoinBoard> board() override { return job_.board(); }
  std::function<bool(const std::vector<int>&)> Tie(uint32_t epoch, const std::vector<int>& members) override {
    return tie_.Claim(epoch, members);
  }
  bool AwaitTie(uint32_t epoch) override { return tie_.Await(epoch); }
  void OnTied() override { tie_.Bind(); }
  bool NewcomersWait() override {
    if (!first_) return false;  // one of the ranks looks
    job_.KeepCoordinator();
    // What the lease's thread has last heard may be old: those may be in already.
    if (job_.client().standing().newcomers_waiting == 0) return false;
    const auto waiting = job_.board()->Waiting();
    return waiting.ok() && !waiting->empty();
  }
  bool MayEnter() override {
    // A checkpoint that is being written would be given up: they wait for that one, and for no other.
    if (snapshots_.saving() < 0) return true;
    if (awaited_save_ < 0) awaited_save_ = snapshots_.saving();
    return snapshots_.saving() != awaited_save_;
  }
  bool AskedToLeave() override {
    return StopRequested()->load() || job_.client().standing().leave_requested || IsEvicted();
  }
  // This rank goes because it is a straggler.
  bool evicted() const { return evicted_; }

  std::unique_ptr<parallel::BatchSource> MakeSource() override {
    return MakeLoaderSource(data_.training, data_.held_out, runtime::CpuDevice());
  }
  // Its host's keeper may have to be started.
  void WarmUp(const comm::Communicator& world) override { (void)snapshots_.Kept(world); }
  absl::StatusOr<ElasticCounts> Load(ElasticPart& part) override {
    // After ranks were lost with their state the newest checkpoint counts, whatever the user began from.
    const bool resume = config_.checkpoint().resume() || std::exchange(loaded_, true);
    loaded_ = true;
    COHORT_RETURN_IF_ERROR(state_.Load(*part.model, part.optimizer, resume));
    return ElasticCounts{.step = part.optimizer.step, .tokens = state_.tokens(), .seconds = state_.seconds()};
  }
  absl::Status Save(ElasticPart& part, const ElasticCounts& counts, bool more) override {
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

  absl::StatusOr<std::string> Recover(comm::Communicator& world) override {
    return snapshots_.Recover(world);
  }
  std::vector<parallel::KeptState> Kept(const comm::Communicator& world) override {
    return snapshots_.Kept(world);
  }
  absl::Status AfterGradients() override { return snapshots_.AfterGradients(); }
  absl::Status BeforeUpdate() override {
    snapshots_.BeforeUpdate();
    return tie_.Hold();
  }
  absl::Status AfterUpdate(ElasticPart&, const ElasticCounts& counts) override {
    snapshots_.AfterUpdate(counts);
    TellSaved(snapshots_.Saved(/*wait=*/false));
    return absl::OkStatus();
  }

  void AfterSpareStep() override { snapshots_.AfterSpareStep(); }

  void OnMove(const ElasticChange& change) override {
    if (!first_) return;
    job_.client().Tell(v1::EVENT_KIND_RECONFIGURATION_BEGUN, step_,
                       absl::StrCat("members ", absl::StrJoin(change.joined, ", "),
                                    " enter: the state moves while a step is made"));
  }
  absl::Status OnChange(ElasticPart& part, const ElasticChange& change) override {
    first_ = !part.spare() && part.group->rank() == 0;
    loaded_ = true;
    tie_.SetGroup(change.epoch, change.names);
    awaited_save_ = -1;
    COHORT_RETURN_IF_ERROR(snapshots_.Follow(part, change.member, change.counts));
    const auto saved = snapshots_.Saved(/*wait=*/false);  // told by one rank
    // Others have been compared on another mesh.
    computed_.clear();
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
  void OnRepair(int64_t step, const std::string& words) override {
    if (!first_) return;
    log_->Note(absl::StrCat("step ", step, "  repaired: ", words));
    job_.client().Tell(v1::EVENT_KIND_REPAIR, step, words);
  }
  void OnEdit(uint32_t epoch, const std::vector<std::string>& names) override { tie_.SetGroup(epoch, names); }
  void OnLeft(uint32_t epoch, const std::vector<std::string>& names) override {
    tie_.SetGroup(epoch, names);
    if (!first_) return;
    told_.from = told_.to;
    told_.to = epoch + 1;
    told_.members = names;
    told_.why = "members left";
    job_.client().RecordEpoch(told_);
  }
  void OnStep(const runtime::StepReport& report) override {
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
    told.set_tokens(first_ ? report.tokens : 0);
    job_.client().SetReport(told);
    step_ = report.step;
  }
  void OnEvaluation(int64_t step, const runtime::Trainable::Evaluation& evaluation) override {
    if (log_ != nullptr) log_->Evaluation(step, evaluation);
  }
  void OnSaveFailed(int64_t step, const absl::Status& status) override {
    if (log_ == nullptr) return;
    const std::string words =
        absl::StrFormat("could not be saved, training goes on: %s", std::string(status.message()));
    log_->Note(absl::StrFormat("step %d  %s", step, words));
    job_.client().Tell(v1::EVENT_KIND_NOTE, step, words);
  }

  // The training is over, for all or for this process.
  void End(ElasticEnd end) {
    if (log_ != nullptr) log_->End();
    if (end == ElasticEnd::kLeft) {
      std::printf("rank %d has left; the others go on\n", comm::LaunchedRank());
    } else if (first_) {
      std::printf("%s; the model is in %s/checkpoints/latest\n",
                  end == ElasticEnd::kDone ? "done" : "stopped", config_.output().c_str());
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

 private:
  // As elastic.stragglers says. Who goes goes, though the coordinator judges nobody yet on the next mesh.
  bool IsEvicted() {
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

  absl::Status OpenLog(const ElasticPart& part, const ElasticChange& change) {
    COHORT_ASSIGN_OR_RETURN(
        log_, RunLog::Open(part.mesh.config(),
                           {.rank = 0,
                            .resumed_step = change.counts.step,
                            .peak_flops = flops_ * part.group->size(),
                            .flops_per_token = model_.TrainFlopsPerToken(config_.data().sequence_length())}));
    const absl::Status written =
        runtime::WriteFileDurably(config_.output() + "/config.yaml", runtime::ToYaml(part.mesh.config()));
    if (!written.ok()) log_->Note(absl::StrCat("config.yaml is of another mesh: ", written.message()));
    return absl::OkStatus();
  }

  void TellSaved(const std::optional<parallel::BackgroundSave::Outcome>& saved) {
    if (!saved || !first_) return;
    if (!saved->path.ok()) return OnSaveFailed(saved->step, saved->path.status());
    log_->Note(absl::StrFormat("step %d  saved %s", saved->step, *saved->path));
    job_.client().Tell(v1::EVENT_KIND_CHECKPOINT, saved->step, *saved->path, saved->seconds);
  }

  static std::string Words(const ElasticChange& change) {
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

  const v1::TrainConfig config_;
  const runtime::ModelConfig model_;
  const TrainingData& data_;
  const double flops_;
  ElasticJob& job_;
  cluster::TieBond tie_;
  TrainingState state_;
  parallel::PartSnapshots snapshots_;
  std::unique_ptr<RunLog> log_;
  cluster::EpochAdvance told_;
  bool first_ = false;
  bool loaded_;  // some state of this training has been: where it is lost, the newest checkpoint counts
  int64_t awaited_save_ = -1;   // by newcomers
  std::deque<float> computed_;  // seconds, of the newest steps on this mesh
  int stage_ = 0;
  int64_t step_ = 0;  // done
  bool evicted_ = false;
};

// The configuration of the mesh that trains now, as its members have told the coordinator.
absl::StatusOr<v1::TrainConfig> ConfigOfJob(ElasticJob& job, absl::Time deadline) {
  for (;;) {
    COHORT_ASSIGN_OR_RETURN(const v1::DescribeResponse there, job.client().Describe(0, deadline));
    v1::ElasticMesh mesh;
    std::string bytes;
    if (there.epoch().number() > 0 && absl::Base64Unescape(there.epoch().arrangement(), &bytes) &&
        mesh.ParseFromString(bytes)) {
      return mesh.config();
    }
    if (absl::Now() >= deadline)
      return absl::DeadlineExceededError("the job that is to be joined does not train");
    absl::SleepFor(absl::Milliseconds(50));
  }
}

}  // namespace

absl::Status TrainElastic(v1::TrainConfig config, const ElasticFlags& flags) {
  if (config.has_device() && config.device() != "cpu") {
    return absl::UnimplementedError(
        "device: elastic training keeps and moves state in the memory of hosts only: take device cpu, or "
        "train without "
        "--elastic");
  }
  const bool joins = !flags.join.empty();
  COHORT_ASSIGN_OR_RETURN(
      auto job, ElasticJob::Create({.coordinator = joins ? flags.join : flags.coordinator, .joins = joins},
                                   config.output() + "/elastic"));
  runtime::ResolvedConfig resolved;
  std::shared_ptr<comm::Communicator> world;
  if (joins) {
    COHORT_ASSIGN_OR_RETURN(config, ConfigOfJob(*job, absl::Now() + absl::Minutes(1)));
    COHORT_ASSIGN_OR_RETURN(resolved.model, runtime::ModelConfigFrom(config));
    resolved.config = config;
  } else {
    COHORT_ASSIGN_OR_RETURN(world, job->Meet(TimeoutOf(config)));
    COHORT_ASSIGN_OR_RETURN(resolved, Resolve(std::move(config), *world));
  }
  runtime::SetCpuThreads(resolved.config.train().threads());
  if (std::getenv("COHORT_ACTIVITY") == nullptr)
    runtime::FollowActivity();  // told with each renewal, for `cohort top`
  COHORT_ASSIGN_OR_RETURN(const TrainingData data, OpenData(resolved.config));
  const parallel::ElasticOptions options = {
      .config = resolved.config,
      .model = resolved.model,
      .loop = LoopOptions(resolved.config, data.held_out != nullptr),
      .flops = runtime::MeasureMatMulRate(*ParseDataType(resolved.config.train().dtype()), 0),
      .check_every = resolved.config.elastic().check_every(),
      .patience = absl::Seconds(resolved.config.elastic().patience_seconds())};
  bool published = false, trained = false;
  for (;;) {
    if (world == nullptr) {
      auto joined = job->Join(TimeoutOf(resolved.config));
      // Who was taken out may be cut off still, although it reaches the coordinator: it opens its links anew.
      const auto refused = [&] { return comm::ExclusionOf(joined.status()) == comm::Exclusion::kRefused; };
      for (const absl::Time until = absl::Now() + kRejoin;
           !joined.ok() && !refused() && trained && absl::Now() < until;) {
        absl::SleepFor(kRejoinPause);
        joined = job->Join(TimeoutOf(resolved.config));
      }
      if (refused()) {  // nobody is missing it
        std::printf("%s\n", std::string(joined.status().message()).c_str());
        return absl::OkStatus();
      }
      COHORT_RETURN_IF_ERROR(joined.status());
      world = *std::move(joined);
    }
    const char* activity = std::getenv("COHORT_ACTIVITY");  // for tools/elastic_faults
    if (activity != nullptr && !std::exchange(published, true)) {
      COHORT_RETURN_IF_ERROR(runtime::PublishActivity(absl::StrCat(activity, "/", getpid())));
    }
    const bool began = std::exchange(trained, true);
    absl::StatusOr<ElasticEnd> end = ElasticEnd::kDone;
    bool evicted = false;
    {
      TrainingHost host(resolved.config, resolved.model, data, options.flops, *job, joins || began);
      end = parallel::RunElastic(std::move(world), options, runtime::CpuDevice(), host);
      world = nullptr;
      if (end.ok()) host.End(*end);
      evicted = host.evicted();
    }
    if (end.ok()) {
      const double seconds = resolved.config.elastic().straggler_return_seconds();
      if (*end != ElasticEnd::kLeft || !evicted || seconds <= 0) return absl::OkStatus();
      COHORT_ASSIGN_OR_RETURN(job,
                              ElasticJob::ComeBack(std::move(job), absl::Now() + absl::Seconds(seconds),
                                                   resolved.config.output() + "/elastic", *StopRequested()));
      if (job == nullptr) return absl::OkStatus();
      continue;
    }
    // The others went on without this rank, or may have: it was stopped or cut off, and comes back as a newcomer.
    const auto exclusion = comm::ExclusionOf(end.status());
    const bool taken_out = exclusion == comm::Exclusion::kRemoved || exclusion == comm::Exclusion::kNoQuorum;
    if (!taken_out || StopRequested()->load()) return end.status();
    std::fprintf(stderr, "cohort: rank %d trains no more: %s. It asks to be taken in again\n",
                 comm::LaunchedRank(), std::string(end.status().message()).c_str());
  }
}

}  // namespace cohort::tools
