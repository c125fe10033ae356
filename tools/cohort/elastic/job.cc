#include "tools/cohort/elastic/job.h"

#include <signal.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/rendezvous.h"
#include "runtime/elastic/coordinator/board.h"
#include "runtime/elastic/coordinator/rendezvous.h"
#include "runtime/file.h"
#include "runtime/metrics/activity.h"
#include "tools/cohort/elastic/own_coordinator.h"
#include "tools/cohort/policy.h"

namespace cohort::tools {
namespace {

bool AnyTrains(const v1::DescribeResponse& job) {
  return std::any_of(job.members().begin(), job.members().end(), [](const v1::Member& member) {
    return member.state() == v1::MEMBER_STATE_LIVE && member.rank() >= 0;
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<ElasticJob>> ElasticJob::Create(const ElasticJobFlags& flags,
                                                               const std::string& folder) {
  std::unique_ptr<ElasticJob> job(new ElasticJob);
  COHORT_ASSIGN_OR_RETURN(job->launch_, ThisLaunch());
  const Launch& launch = job->launch_;
  job->address_ = flags.coordinator;
  job->own_ = flags.coordinator.empty();
  job->address_file_ = absl::StrCat(folder, "/address-", launch.id);
  job->own_folder_ = absl::StrCat(folder, "/", launch.id);
  if (job->own_) {
    if (launch.rank == 0) {
      COHORT_RETURN_IF_ERROR(StartCoordinator(job->own_folder_, job->address_file_, launch.several_hosts));
    }
    COHORT_ASSIGN_OR_RETURN(job->address_,
                            WaitForAddress(job->address_file_, absl::Now() + policy::kCoordinatorStart));
  }
  cluster::ClientOptions options = {.coordinator = job->address_,
                                    .job = "",
                                    .name = "",
                                    .address = "",
                                    .role = flags.joins ? v1::MEMBER_ROLE_NEWCOMER : v1::MEMBER_ROLE_LAUNCHED,
                                    .launch_id = launch.id,
                                    .launch_rank = launch.rank,
                                    .launch_size = launch.size,
                                    .version = COHORT_VERSION};
  if (flags.joins) {
    cluster::ClientOptions onlooker;
    onlooker.coordinator = job->address_;
    COHORT_ASSIGN_OR_RETURN(const auto looks, cluster::Client::Create(onlooker));
    COHORT_ASSIGN_OR_RETURN(const v1::DescribeResponse there,
                            looks->Describe(0, absl::Now() + policy::kCoordinatorStart));
    job->id_ = there.job();
    if (job->id_.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("the coordinator at ", job->address_, " has no job yet: nothing can be joined"));
    }
  } else {
    job->id_ = launch.id;
  }
  options.job = job->id_;
  COHORT_ASSIGN_OR_RETURN(auto client, cluster::Client::Create(options));
  job->client_ = std::move(client);
  job->client_->SetPhase(runtime::CurrentActivity);
  absl::Status joined = job->client_->Join(absl::Now() + policy::kCoordinatorStart);
  // The job before this one at the same coordinator may have ended without a word: its leases run out.
  for (const absl::Time until = absl::Now() + policy::kFormerJob;
       absl::IsFailedPrecondition(joined) && absl::Now() < until;) {
    absl::SleepFor(policy::kJobLook);
    joined = job->client_->Join(absl::Now() + policy::kCoordinatorStart);
  }
  COHORT_RETURN_IF_ERROR(joined);
  job->board_ = cluster::GrpcJoinBoard(job->client_, {.patience = absl::Seconds(1), .empty_when_away = true});
  return job;
}

absl::StatusOr<std::unique_ptr<ElasticJob>> ElasticJob::ComeBack(std::unique_ptr<ElasticJob> left,
                                                                 absl::Time when, const std::string& folder,
                                                                 const std::atomic<bool>& stop) {
  for (absl::Time heard = absl::Now(); absl::Now() < when; absl::SleepFor(policy::kJobLook)) {
    const auto there = left->client_->Describe(0, absl::Now() + policy::kJobLook);
    if (there.ok() && AnyTrains(*there)) heard = absl::Now();
    if (stop.load() || absl::Now() - heard > policy::kNobodyTrains) return nullptr;
  }
  const std::string coordinator = left->address_;
  left.reset();
  return Create({.coordinator = coordinator, .joins = true}, folder);
}

absl::StatusOr<std::shared_ptr<comm::Communicator>> ElasticJob::Meet(absl::Duration timeout) {
  if (launch_.size == 1) {
    // Alone it can still be joined, so it needs a world that grows.
    return comm::Communicator::Create(cluster::GrpcRendezvous(client_, id_, 0, 1), {.timeout = timeout});
  }
  return comm::Communicator::Create(cluster::GrpcRendezvous(client_, id_, launch_.rank, launch_.size),
                                    {.timeout = timeout});
}

absl::StatusOr<std::shared_ptr<comm::Communicator>> ElasticJob::Join(absl::Duration timeout) {
  // Only then are the links there by which it is reached: those that are up now are the ones that it offers.
  COHORT_RETURN_IF_ERROR(client_->Describe(0, absl::Now() + policy::kCoordinatorAway).status());
  return comm::Communicator::Join(cluster::GrpcJoinBoard(client_, {.patience = policy::kCoordinatorAway}),
                                  {.timeout = timeout});
}

void ElasticJob::LookAfterCoordinator(const std::string& folder) {
  const std::string address_file = absl::StrCat(folder, "/address-", id_);
  const absl::StatusOr<std::string> address = runtime::ReadFile(address_file);
  if (!address.ok() || absl::StripSuffix(*address, "\n") != address_) return;
  own_ = true;
  own_folder_ = absl::StrCat(folder, "/", id_);
  address_file_ = address_file;
}

void ElasticJob::KeepCoordinator() {
  if (!own_) return;
  const cluster::Standing standing = client_->standing();
  if (standing.reachable || absl::Now() - standing.heard < policy::kCoordinatorSilence ||
      absl::Now() - started_ < 5 * policy::kCoordinatorSilence)
    return;
  started_ = absl::Now();
  (void)RestartCoordinator(own_folder_, address_file_, launch_.several_hosts);
}

void ElasticJob::End() {
  (void)comm::RefuseNewcomers(*board_, "the training that was to be joined is over");
  if (!own_) return;
  // The others leave too: the coordinator goes when nobody needs it any more.
  const absl::Time deadline = absl::Now() + policy::kLastMembers;
  while (absl::Now() < deadline) {
    const auto there = client_->Describe(0, deadline);
    if (!there.ok()) break;
    if (!AnyTrains(*there)) break;
    absl::SleepFor(absl::Milliseconds(20));
  }
  if (const pid_t pid = CoordinatorHere(address_file_); pid > 0) (void)kill(pid, SIGTERM);
}

}  // namespace cohort::tools
