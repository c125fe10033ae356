#include "comm/interposer/session.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/interposer/board.h"
#include "comm/tuner/agreement.h"

namespace cohort::comm::interposer {
namespace {

// Ranks of an MPI program may compute for hours before they come.
CommunicatorOptions Options() { return {.timeout = absl::InfiniteDuration()}; }

bool Verbose() {
  const char* verbose = std::getenv("COHORT_MPI_VERBOSE");
  return verbose != nullptr && *verbose != '\0' && *verbose != '0';
}

int WorldRank() {
  int rank = 0;
  PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

}  // namespace

std::atomic<Session*> Session::current_{nullptr};

void Session::Begin() {
  if (Get() != nullptr) return;
  int size = 1;
  PMPI_Comm_size(MPI_COMM_WORLD, &size);
  // What rank 0 was told holds for all.
  Takeover takeover;
  if (auto told = ParseTakeover(std::getenv("COHORT_MPI"), std::getenv("COHORT_MPI_OPS")); told.ok()) {
    takeover = *told;
  } else {
    takeover.on = false;
    if (WorldRank() == 0) {
      std::fprintf(stderr, "cohort_mpi: nothing is taken over: %s\n", told.status().ToString().c_str());
    }
  }
  PMPI_Bcast(&takeover, sizeof(takeover), MPI_BYTE, 0, MPI_COMM_WORLD);
  if (!takeover.on || size == 1) return;

  // Never freed: threads of the program may still ask for it while it ends.
  auto* session = new Session;
  session->takeover_ = takeover;
  PMPI_Comm_dup(MPI_COMM_WORLD, &session->own_);
  const absl::Status status = session->Connect();
  int connected = status.ok() ? 1 : 0, all = 0;
  PMPI_Allreduce(&connected, &all, 1, MPI_INT, MPI_MIN, session->own_);
  if (!status.ok()) {
    std::fprintf(stderr, "cohort_mpi: rank %d cannot connect, nothing is taken over: %s\n", WorldRank(),
                 status.ToString().c_str());
  }
  if (all == 0) {
    session->everyone_.reset();
    session->engine_.reset();
    PMPI_Comm_free(&session->own_);
    return;
  }
  PMPI_Comm_group(MPI_COMM_WORLD, &session->world_);
  PMPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, OnCommFreed, &session->keyval_, nullptr);
  PMPI_Add_error_code(MPI_ERR_OTHER, &session->error_code_);
  current_.store(session, std::memory_order_release);
}

absl::Status Session::Connect() {
  Board board(own_);
  const absl::Status status = Meet(board, absl::Now() + kConnect);
  board.Close();
  return status;
}

absl::Status Session::Meet(Rendezvous& rendezvous, absl::Time deadline) {
  absl::StatusOr<TuningInputs> tuning = ReadTuningInputs(Options());
  COHORT_RETURN_IF_ERROR(CompareAtRendezvous(rendezvous, tuning, deadline));
  COHORT_ASSIGN_OR_RETURN(engine_, Engine::Create(rendezvous, tuning->declared.get(), deadline));
  std::vector<int> members(rendezvous.size());
  std::iota(members.begin(), members.end(), 0);
  auto group = engine_->AddGroup(0, std::move(members), rendezvous.rank());
  everyone_ = std::make_unique<GroupCommunicator>(engine_, std::move(group), Options(),
                                                  std::make_shared<const TuningInputs>(*std::move(tuning)));
  return everyone_->MeasurePrices(rendezvous, deadline);
}

void Session::End() {
  Session* session = current_.load();
  if (session == nullptr) return;
  // Nobody's last collective is disturbed.
  PMPI_Barrier(session->own_);
  current_.store(nullptr, std::memory_order_release);
  if (Verbose()) session->Report();
  {
    const std::lock_guard lock(session->mutex_);
    session->groups_.clear();
    session->freed_.fetch_add(1);
  }
  session->everyone_.reset();
  session->engine_.reset();
  PMPI_Comm_free_keyval(&session->keyval_);
  PMPI_Group_free(&session->world_);
  PMPI_Comm_free(&session->own_);
}

void Session::Report() {
  uint64_t own[2 * kNumCalls], all[2 * kNumCalls] = {};
  for (int call = 0; call < kNumCalls; ++call) {
    own[2 * call] = taken_[call].load();
    own[2 * call + 1] = passed_[call].load();
  }
  PMPI_Reduce(own, all, 2 * kNumCalls, MPI_UINT64_T, MPI_SUM, 0, own_);
  if (WorldRank() != 0) return;
  std::string text = "cohort_mpi: calls of all ranks, taken over and passed on to MPI\n";
  for (int call = 0; call < kNumCalls; ++call) {
    if (all[2 * call] + all[2 * call + 1] == 0) continue;
    absl::StrAppend(&text, "cohort_mpi:   ", Name(static_cast<Call>(call)), " ", all[2 * call], " ",
                    all[2 * call + 1], "\n");
  }
  std::fputs(text.c_str(), stderr);
}

int Session::OnCommFreed(MPI_Comm comm, int /*keyval*/, void* /*value*/, void* /*extra*/) {
  Session* session = Get();
  if (session == nullptr) return MPI_SUCCESS;
  std::unique_ptr<Group> group;
  {
    const std::lock_guard lock(session->mutex_);
    const auto entry = session->groups_.find(comm);
    if (entry == session->groups_.end()) return MPI_SUCCESS;
    group = std::move(entry->second);
    session->groups_.erase(entry);
    session->freed_.fetch_add(1, std::memory_order_release);
  }
  return MPI_SUCCESS;
}

Group* Session::Find(MPI_Comm comm) {
  if (comm == MPI_COMM_NULL || comm == MPI_COMM_SELF) return nullptr;
  struct Remembered {
    MPI_Comm comm = MPI_COMM_NULL;
    uint64_t freed = 0;
    Group* group = nullptr;
  };
  static thread_local Remembered last;
  const uint64_t freed = freed_.load(std::memory_order_acquire);
  if (last.group != nullptr && last.comm == comm && last.freed == freed) return last.group;

  const std::lock_guard lock(mutex_);
  std::unique_ptr<Group>& group = groups_[comm];
  if (group == nullptr) {
    group = std::make_unique<Group>();
    int inter = 0, size = 0;
    PMPI_Comm_test_inter(comm, &inter);
    PMPI_Comm_size(comm, &size);
    PMPI_Comm_rank(comm, &group->rank);
    if (!inter && size > 1) {
      MPI_Group members;
      PMPI_Comm_group(comm, &members);
      std::vector<int> ranks(size);
      std::iota(ranks.begin(), ranks.end(), 0);
      group->members.resize(size);
      PMPI_Group_translate_ranks(members, size, ranks.data(), world_, group->members.data());
      PMPI_Group_free(&members);
      const auto& hosts = engine_->topology();
      group->ours = std::none_of(group->members.begin(), group->members.end(),
                                 [](int rank) { return rank == MPI_UNDEFINED; });
      group->on_one_host =
          group->ours && std::all_of(group->members.begin(), group->members.end(), [&](int rank) {
            return hosts.host_of(rank) == hosts.host_of(group->members[0]);
          });
    }
    PMPI_Comm_set_attr(comm, keyval_, nullptr);
  }
  last = {comm, freed, group.get()};
  return group.get();
}

absl::StatusOr<Communicator*> Session::Ready(MPI_Comm comm, Group* group) {
  if (group->communicator != nullptr) return group->communicator.get();
  // A number that is new to all members; other threads may be making other groups.
  for (;;) {
    int64_t wish = engine_->NextContext(), agreed = 0;
    if (PMPI_Allreduce(&wish, &agreed, 1, MPI_INT64_T, MPI_MAX, comm) != MPI_SUCCESS) break;
    int reserved = 0, by_all = 0;
    {
      const std::lock_guard lock(contexts_);
      if (engine_->NextContext() <= agreed) {
        engine_->ReserveContexts(static_cast<uint32_t>(agreed + 1));
        reserved = 1;
      }
    }
    if (PMPI_Allreduce(&reserved, &by_all, 1, MPI_INT, MPI_MIN, comm) != MPI_SUCCESS) break;
    if (by_all == 0) continue;
    auto own = engine_->AddGroup(static_cast<uint32_t>(agreed), group->members, group->rank);
    group->communicator =
        std::make_unique<GroupCommunicator>(engine_, std::move(own), Options(), everyone_->tuning());
    return group->communicator.get();
  }
  return absl::UnavailableError("MPI failed while a communicator was met for the first time");
}

absl::Status Session::Wait(const Work& work) {
  absl::Duration turn = kTurn;
  absl::Time patient = absl::InfinitePast();
  for (;;) {
    const absl::Time now = absl::Now();
    if (patient == absl::InfinitePast()) patient = now + kPatientAfter;
    if (now > patient) turn = kPatientTurn;
    // The limit is the turn's: the status counts only once the work is over.
    (void)work.Wait(now + turn);
    if (work.Done()) return work.Wait();
    int found = 0;
    PMPI_Iprobe(MPI_ANY_SOURCE, 0, own_, &found, MPI_STATUS_IGNORE);
  }
}

int Session::Raise(MPI_Comm comm, const absl::Status& status) {
  std::string text = absl::StrCat("Cohort: ", status.ToString());
  text.resize(std::min<size_t>(text.size(), MPI_MAX_ERROR_STRING - 1));
  PMPI_Add_error_string(error_code_, text.c_str());
  std::fprintf(stderr, "cohort_mpi: rank %d: %s\n", WorldRank(), status.ToString().c_str());
  PMPI_Comm_call_errhandler(comm, error_code_);
  return error_code_;
}

}  // namespace cohort::comm::interposer
