#include "tools/cohort/elastic_job.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/rendezvous.h"
#include "comm/topology.h"
#include "runtime/elastic/coordinator/board.h"
#include "runtime/elastic/coordinator/rendezvous.h"
#include "runtime/file.h"
#include "runtime/metrics/activity.h"

extern char** environ;

namespace cohort::tools {
namespace {

constexpr absl::Duration kStart = absl::Seconds(30);   // for a coordinator to answer
constexpr absl::Duration kLast = absl::Seconds(3);     // for the other members to leave at the end
constexpr absl::Duration kSilence = absl::Seconds(1);  // before the job's own is started again
constexpr absl::Duration kAway = absl::Minutes(5);     // a coordinator that a newcomer waits for
constexpr absl::Duration kUnsaid = absl::Seconds(10);  // nobody trains, as far as who has left can see
constexpr absl::Duration kFormer =
    absl::Seconds(15);  // the members of the job before, to be known to be gone
constexpr absl::Duration kLook = absl::Milliseconds(500);

// An environment variable as a number.
int Number(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  int number = otherwise;
  return value != nullptr && absl::SimpleAtoi(value, &number) ? number : otherwise;
}

std::string Text(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// What the processes of one launch have in common and no other launch has; empty: there was no launcher.
std::string LaunchId() {
  std::string id;
  for (const char* name : {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID"}) {
    if (id.empty()) id = Text(name);
  }
  if (id.empty() && !Text("SLURM_JOB_ID").empty()) {
    id = absl::StrCat("slurm-", Text("SLURM_JOB_ID"), ".", Text("SLURM_STEP_ID"));
  }
  // A job that was queued again has the same number, and its steps begin at 0 again.
  const std::string again = Text("SLURM_RESTART_COUNT");
  return id.empty() || again.empty() || again == "0" ? id : absl::StrCat(id, "-", again);
}

// A process of its own session: neither the launcher nor the death of this process ends it. Its pid and host are
// written beside its address.
absl::Status StartCoordinator(const std::string& folder, const std::string& address_file,
                              bool several_hosts) {
  const std::string log = folder + "/coordinator.log";
  COHORT_RETURN_IF_ERROR(runtime::MakeFolderOf(log));
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  posix_spawn_file_actions_adddup2(&files, 1, 2);
  posix_spawn_file_actions_addclosefrom_np(&files, 3);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
  std::vector<std::string> words = {
      "/proc/self/exe", "coordinator", "--listen",       several_hosts ? "0.0.0.0:0" : "127.0.0.1:0",
      "--state",        folder,        "--address-file", address_file};
  std::error_code error;
  words[0] = std::filesystem::read_symlink("/proc/self/exe", error).string();
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = -1;
  const int failed = posix_spawn(&child, argv[0], &files, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  if (failed != 0) return runtime::ErrnoStatus(failed, "run", words[0]);
  return runtime::WriteFileDurably(address_file + ".pid",
                                   absl::StrCat(child, " ", comm::HostIdentity(), "\n"));
}

// The pid of the job's own coordinator where that is on this host; 0 elsewhere.
pid_t CoordinatorHere(const std::string& address_file) {
  const auto text = runtime::ReadFile(address_file + ".pid");
  if (!text.ok()) return 0;
  const std::vector<std::string> words = absl::StrSplit(absl::StripSuffix(*text, "\n"), ' ');
  int pid = 0;
  if (words.size() != 2 || words[1] != comm::HostIdentity() || !absl::SimpleAtoi(words[0], &pid)) return 0;
  return pid;
}

bool AnyTrains(const v1::DescribeResponse& job) {
  return std::any_of(job.members().begin(), job.members().end(), [](const v1::Member& member) {
    return member.state() == v1::MEMBER_STATE_LIVE && member.rank() >= 0;
  });
}

absl::StatusOr<std::string> WaitForAddress(const std::string& file, absl::Time deadline) {
  for (;;) {
    const auto text = runtime::ReadFile(file);
    if (text.ok() && !text->empty()) return std::string(absl::StripSuffix(*text, "\n"));
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("no coordinator has written its address to ", file,
                       ": is that folder seen by all ranks? coordinator.log there says what it did"));
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ElasticJob>> ElasticJob::Create(const ElasticJobFlags& flags,
                                                               const std::string& folder) {
  std::unique_ptr<ElasticJob> job(new ElasticJob);
  const std::string launch = LaunchId();
  job->folder_ = folder;
  job->rank_ = comm::LaunchedRank();
  // PMIx tells the size only to who calls it; Slurm to all of a step.
  const int of_step = std::getenv("PMIX_RANK") == nullptr ? 1 : Number("SLURM_STEP_NUM_TASKS", 1);
  job->size_ = Number("OMPI_COMM_WORLD_SIZE", Number("PMI_SIZE", of_step));
  job->several_hosts_ = Number("OMPI_COMM_WORLD_LOCAL_SIZE", job->size_) < job->size_ ||
                        (job->size_ > 1 && Number("SLURM_STEP_NUM_NODES", 1) > 1);
  if (launch.empty() && job->size_ > 1) {
    return absl::FailedPreconditionError(
        "the launcher gives its processes no common name: none of PMIX_NAMESPACE, PMI_JOBID and SLURM_JOB_ID "
        "is set");
  }
  job->address_ = flags.coordinator;
  job->own_ = flags.coordinator.empty();
  // A process alone is a launch of its own.
  const std::string own_id = launch.empty() ? absl::StrCat("alone-", getpid()) : launch;
  const std::string address_file = absl::StrCat(folder, "/address-", own_id);
  if (job->own_) {
    if (job->rank_ == 0) {
      COHORT_RETURN_IF_ERROR(StartCoordinator(folder + "/" + own_id, address_file, job->several_hosts_));
    }
    COHORT_ASSIGN_OR_RETURN(job->address_, WaitForAddress(address_file, absl::Now() + kStart));
    job->folder_ = address_file;
  }
  cluster::ClientOptions options = {.coordinator = job->address_,
                                    .job = "",
                                    .name = "",
                                    .address = "",
                                    .role = flags.joins ? v1::MEMBER_ROLE_NEWCOMER : v1::MEMBER_ROLE_LAUNCHED,
                                    .launch_id = own_id,
                                    .launch_rank = job->rank_,
                                    .launch_size = job->size_};
  if (flags.joins) {
    cluster::ClientOptions onlooker;
    onlooker.coordinator = job->address_;
    COHORT_ASSIGN_OR_RETURN(const auto looks, cluster::Client::Create(onlooker));
    COHORT_ASSIGN_OR_RETURN(const v1::DescribeResponse there, looks->Describe(0, absl::Now() + kStart));
    job->id_ = there.job();
    if (job->id_.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("the coordinator at ", job->address_, " has no job yet: nothing can be joined"));
    }
  } else {
    job->id_ = own_id;
  }
  options.job = job->id_;
  COHORT_ASSIGN_OR_RETURN(auto client, cluster::Client::Create(options));
  job->client_ = std::move(client);
  job->client_->SetPhase(runtime::CurrentActivity);
  absl::Status joined = job->client_->Join(absl::Now() + kStart);
  // The job before this one at the same coordinator may have ended without a word: its leases run out.
  for (const absl::Time until = absl::Now() + kFormer;
       absl::IsFailedPrecondition(joined) && absl::Now() < until;) {
    absl::SleepFor(kLook);
    joined = job->client_->Join(absl::Now() + kStart);
  }
  COHORT_RETURN_IF_ERROR(joined);
  job->board_ = cluster::GrpcJoinBoard(job->client_, {.patience = absl::Seconds(1), .empty_when_away = true});
  return job;
}

absl::StatusOr<std::unique_ptr<ElasticJob>> ElasticJob::ComeBack(std::unique_ptr<ElasticJob> left,
                                                                 absl::Time when, const std::string& folder,
                                                                 const std::atomic<bool>& stop) {
  for (absl::Time heard = absl::Now(); absl::Now() < when; absl::SleepFor(kLook)) {
    const auto there = left->client_->Describe(0, absl::Now() + kLook);
    if (there.ok() && AnyTrains(*there)) heard = absl::Now();
    if (stop.load() || absl::Now() - heard > kUnsaid) return nullptr;
  }
  const std::string coordinator = left->address_;
  left.reset();
  return Create({.coordinator = coordinator, .joins = true}, folder);
}

absl::StatusOr<std::shared_ptr<comm::Communicator>> ElasticJob::Meet(absl::Duration timeout) {
  if (size_ == 1) {
    // Alone it can still be joined, so it needs a world that grows.
    return comm::Communicator::Create(cluster::GrpcRendezvous(client_, id_, 0, 1), {.timeout = timeout});
  }
  return comm::Communicator::Create(cluster::GrpcRendezvous(client_, id_, rank_, size_),
                                    {.timeout = timeout});
}

absl::StatusOr<std::shared_ptr<comm::Communicator>> ElasticJob::Join(absl::Duration timeout) {
  // Only then are the links there by which it is reached: those that are up now are the ones that it offers.
  COHORT_RETURN_IF_ERROR(client_->Describe(0, absl::Now() + kAway).status());
  return comm::Communicator::Join(cluster::GrpcJoinBoard(client_, {.patience = kAway}), {.timeout = timeout});
}

void ElasticJob::KeepCoordinator() {
  if (!own_) return;
  const cluster::Standing standing = client_->standing();
  if (standing.reachable || absl::Now() - standing.heard < kSilence || absl::Now() - started_ < 5 * kSilence)
    return;
  const pid_t pid = CoordinatorHere(folder_);
  // Where it was this process's child, it stays a zombie until it is looked at.
  if (pid > 0) (void)waitpid(pid, nullptr, WNOHANG);
  if (pid == 0 || kill(pid, 0) == 0) return;  // of another host, or it lives and is only slow
  started_ = absl::Now();
  (void)StartCoordinator(absl::StrCat(std::filesystem::path(folder_).parent_path().string(), "/", id_),
                         folder_, several_hosts_);
}

void ElasticJob::End() {
  (void)comm::RefuseNewcomers(*board_, "the training that was to be joined is over");
  if (!own_) return;
  // The others leave too: the coordinator goes when nobody needs it any more.
  const absl::Time deadline = absl::Now() + kLast;
  while (absl::Now() < deadline) {
    const auto there = client_->Describe(0, deadline);
    if (!there.ok()) break;
    if (!AnyTrains(*there)) break;
    absl::SleepFor(absl::Milliseconds(20));
  }
  if (const pid_t pid = CoordinatorHere(folder_); pid > 0) (void)kill(pid, SIGTERM);
}

}  // namespace cohort::tools
