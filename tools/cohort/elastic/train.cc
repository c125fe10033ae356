#include "tools/cohort/elastic/train.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cohort/v1/elastic.pb.h"
#include "comm/check.h"
#include "comm/policy.h"
#include "parallel/elastic/elastic_run.h"
#include "runtime/device/cuda/open_cuda_device.h"
#include "runtime/metrics/activity.h"
#include "runtime/ops/machine_rates.h"
#include "tools/cohort/claimed_gpu.h"
#include "tools/cohort/elastic/job.h"
#include "tools/cohort/elastic/own_coordinator.h"
#include "tools/cohort/elastic/training_host.h"
#include "tools/cohort/policy.h"
#include "tools/cohort/training_setup.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

using parallel::ElasticEnd;

absl::Duration TimeoutOf(const v1::TrainConfig& config) {
  return config.parallel().has_timeout_seconds() ? absl::Seconds(config.parallel().timeout_seconds())
                                                 : comm::policy::kTimeout;
}

// A member that trains, or was launched to.
bool AnyLives(const v1::DescribeResponse& job) {
  return std::any_of(job.members().begin(), job.members().end(), [](const v1::Member& member) {
    return member.state() == v1::MEMBER_STATE_LIVE &&
           (member.rank() >= 0 || member.role() == v1::MEMBER_ROLE_LAUNCHED);
  });
}

// The configuration of the mesh that trains now, as its members have told the coordinator.
absl::StatusOr<v1::TrainConfig> ConfigOfJob(ElasticJob& job, absl::Time deadline) {
  for (absl::Time heard = absl::Now();;) {
    COHORT_ASSIGN_OR_RETURN(const v1::DescribeResponse there, job.client().Describe(0, deadline));
    const bool lives = AnyLives(there);
    if (lives) heard = absl::Now();
    v1::ElasticMesh mesh;
    std::string bytes;
    if (lives && there.epoch().number() > 0 && absl::Base64Unescape(there.epoch().arrangement(), &bytes) &&
        mesh.ParseFromString(bytes)) {
      return mesh.config();
    }
    if (absl::Now() - heard > policy::kNobodyTrains) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the training of ", job.id(), " that was to be joined is over: none of its members lives"));
    }
    if (absl::Now() >= deadline)
      return absl::DeadlineExceededError("the job that is to be joined does not train");
    absl::SleepFor(absl::Milliseconds(50));
  }
}

}  // namespace

absl::Status TrainElastic(v1::TrainConfig config, const ElasticFlags& flags) {
  // A rank that can have none says so before others wait for it.
  if (DeviceName(config) != "cpu" && runtime::CudaDeviceCount() == 0) {
    COHORT_RETURN_IF_ERROR(ClaimDevice(DeviceName(config), 0).status());
  }
  const bool joins = !flags.join.empty();
  COHORT_ASSIGN_OR_RETURN(const std::string coordinator,
                          CoordinatorAddress(joins ? flags.join : flags.coordinator));
  COHORT_ASSIGN_OR_RETURN(auto job, ElasticJob::Create({.coordinator = coordinator, .joins = joins},
                                                       config.output() + "/elastic"));
  runtime::ResolvedConfig resolved;
  std::shared_ptr<comm::Communicator> world;
  runtime::Device* device = nullptr;
  if (joins) {
    COHORT_ASSIGN_OR_RETURN(config, ConfigOfJob(*job, absl::Now() + absl::Minutes(1)));
    COHORT_ASSIGN_OR_RETURN(device, ClaimDevice(DeviceName(config), 0));
    COHORT_ASSIGN_OR_RETURN(resolved.model, runtime::ModelConfigFrom(config));
    resolved.config = config;
    job->LookAfterCoordinator(config.output() + "/elastic");
  } else {
    COHORT_ASSIGN_OR_RETURN(world, job->Meet(TimeoutOf(config)));
    const auto claimed = ClaimDevice(DeviceName(config), world->topology().local_rank());
    absl::StatusOr<runtime::ResolvedConfig> checked =
        claimed.ok() ? Resolve(std::move(config), **claimed, *world) : claimed.status();
    if (!checked.ok()) {
      if (world->rank() == 0) job->End();
      return checked.status();
    }
    device = *claimed;
    resolved = *std::move(checked);
  }
  runtime::SetCpuThreads(resolved.config.train().threads());
  if (std::getenv("COHORT_ACTIVITY") == nullptr)
    runtime::FollowActivity();  // told with each renewal, for `cohort top`
  COHORT_ASSIGN_OR_RETURN(const TrainingData data, OpenData(resolved.config));
  const parallel::ElasticOptions options = {
      .config = resolved.config,
      .model = resolved.model,
      .loop = LoopOptions(resolved.config, data.held_out != nullptr),
      .flops = runtime::MeasureMatMulRate(*device, *ParseDataType(resolved.config.train().dtype()), 0),
      .check_every = resolved.config.elastic().check_every(),
      .patience = absl::Seconds(resolved.config.elastic().patience_seconds())};
  bool published = false, trained = false;
  for (;;) {
    if (world == nullptr) {
      auto joined = job->Join(TimeoutOf(resolved.config));
      // Who was taken out may be cut off still, although it reaches the coordinator: it opens its links anew.
      const auto refused = [&] { return comm::ExclusionOf(joined.status()) == comm::Exclusion::kRefused; };
      for (const absl::Time until = absl::Now() + policy::kRejoin;
           !joined.ok() && !refused() && trained && absl::Now() < until;) {
        absl::SleepFor(policy::kRejoinPause);
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
      TrainingHost host(resolved.config, resolved.model, data, *device, options.flops, *job, joins || began);
      end = parallel::RunElastic(std::move(world), options, *device, host);
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
    std::fprintf(stderr, "cohort: %s trains no more: %s. It asks to be taken in again\n",
                 job->client().name().c_str(), std::string(end.status().message()).c_str());
  }
}

}  // namespace cohort::tools
