// cohort bench faults: one member of a group that is hurt from outside. tools/faults starts the members, hurts them,
// and judges what they write down: what they were told, what they did about it, and when.
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/communicator.h"
#include "comm/membership/join_board.h"
#include "comm/philox.h"
#include "nlohmann/json.hpp"
#include "tools/cohort/bench/bench.h"
#include "tools/cohort/bench/fault_calls.h"

namespace cohort::tools {
namespace {

using comm::Communicator;
using Json = nlohmann::ordered_json;

struct FaultsFlags {
  bool list = false;
  std::string folder;
  int rank = -1;  // -1: joins
  int ranks = 0;
  double timeout = 10;
  double patience = 2;
};

// What the group does next, said by the lowest rank in each round: it reads `folder`/plan, which tools/faults writes.
struct Plan {
  int32_t kind = -1;    // of the calls; -1: all kinds in turn
  int32_t members = 0;  // newcomers are taken in up to so many
  int32_t spares = 0;   // newcomers that wait at the board to take the ranks of the lost, at once
  int32_t end = 0;      // after so many collectives; 0: never
  int32_t churn = 0;    // in each epoch somebody leaves, or joins
  int32_t leaver = -1;  // this rank goes now
  int32_t edit = 0;     // the group is edited now
  int32_t over = 0;     // the group ends now
};
using PlanWords = std::array<int32_t, sizeof(Plan) / sizeof(int32_t)>;

constexpr int kCallsARound = 15;
constexpr size_t kCounts[] = {1, 50, 3000, 40'000};
constexpr int kLeastMembers = 3;
constexpr int kEdits = 20;

// The state of a computation that all members share: float sums, whose bits show every difference.
struct State {
  uint64_t round = 0;        // how often it was agreed
  uint64_t collectives = 0;  // until then
  std::array<float, 64> values{};
};

double Now() {
  timespec time = {};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

uint32_t Random(uint32_t epoch, uint32_t number, uint32_t what) {
  return Philox4x32({epoch, number, what, 0}, {20261128, 0})[0];
}

class Member {
 public:
  explicit Member(const FaultsFlags& flags)
      : flags_(flags),
        board_(comm::FolderJoinBoard(flags.folder + "/board")),
        log_(absl::StrCat(flags.folder, "/events-", getpid(), ".jsonl")) {}

  // Until the group ends, or goes on without this process.
  absl::Status Live() {
    COHORT_RETURN_IF_ERROR(Enter());
    for (bool more = true; more;) {
      absl::StatusOr<bool> went = Epoch();
      if (went.ok()) {
        more = *went;
        continue;
      }
      if (went.status().code() == absl::StatusCode::kDataLoss) {
        Note("wrong", {{"message", went.status().message()}});
        return went.status();
      }
      Note("error", {{"message", went.status().ToString()}});
      COHORT_ASSIGN_OR_RETURN(more, Repair());
    }
    return absl::OkStatus();
  }

  // Leaves the group.
  void End() {
    const std::lock_guard lock(mutex_);
    group_.reset();
  }

  // From another thread, of a process that hangs.
  void DumpFlightRecord() {
    const std::lock_guard lock(mutex_);
    const std::string record = group_ == nullptr ? "{}" : group_->FlightRecord();
    std::ofstream(absl::StrCat(flags_.folder, "/flight-", getpid(), ".json")) << record;
  }

 private:
  void Note(const char* event, Json fields) {
    Json line = {{"t", Now()}, {"event", event}};
    if (group_ != nullptr) line["epoch"] = group_->epoch();
    line["kind"] = kind_;
    line.update(fields);
    log_ << line.dump() << std::endl;
  }

  absl::Status Enter() {
    comm::CommunicatorOptions options;
    options.timeout = absl::Seconds(flags_.timeout);
    const bool founds = flags_.rank >= 0 && !was_in_;
    auto entered =
        founds ? Communicator::Create(
                     comm::FileRendezvous(flags_.folder + "/meet", flags_.rank, flags_.ranks), options)
               : Communicator::Join(board_, options);
    if (!entered.ok()) {
      Note("not_in", {{"message", entered.status().ToString()}});
      return entered.status();
    }
    const std::lock_guard lock(mutex_);
    group_ = *std::move(entered);
    was_in_ = true;
    fresh_ = !founds;
    Note("in", {{"member", Own()}, {"members", group_->members()}});
    return absl::OkStatus();
  }

  // Its number, as errors name it.
  int Own() const { return group_->members()[group_->rank()]; }

  // The calls of one epoch, up to an edit that all know of. False: this process has ended.
  absl::StatusOr<bool> Epoch() {
    calls_ = 0;
    COHORT_RETURN_IF_ERROR(Call(0, kCounts[1]));
    Note("works", {{"size", group_->size()}});
    COHORT_RETURN_IF_ERROR(AgreeOnState());
    for (uint32_t round = 0;; ++round) {
      COHORT_RETURN_IF_ERROR(MakePlan(round));
      if (plan_.over != 0) {
        Note("over", {{"collectives", state_.collectives}});
        return false;
      }
      if (plan_.edit != 0) return Edit();
      for (int call = 0; call < kCallsARound; ++call) {
        const uint32_t number = round * kCallsARound + call;
        const int kind = plan_.kind >= 0 ? plan_.kind : static_cast<int>(number % NumFaultCalls());
        const size_t count = kCounts[Random(group_->epoch(), number, 0) % std::size(kCounts)];
        COHORT_RETURN_IF_ERROR(Call(kind, count));
      }
      COHORT_RETURN_IF_ERROR(Advance());
    }
  }

  absl::Status Call(int kind, size_t count) {
    kind_ = FaultCallName(kind);
    COHORT_RETURN_IF_ERROR(CallAndCheck(
        *group_, {kind, count, Random(group_->epoch(), static_cast<uint32_t>(calls_), 1) % 1000}));
    ++calls_;
    return absl::OkStatus();
  }

  // Everybody takes the state of the member that is furthest behind of those who have one: a call may have succeeded on
  // some before the fault came, so each remembers one more.
  absl::Status AgreeOnState() {
    kind_ = "state";
    const int64_t own = fresh_ ? -1 : static_cast<int64_t>(state_.round);
    std::vector<int64_t> rounds(group_->size());
    const std::vector<size_t> counts(group_->size(), 1);
    COHORT_RETURN_IF_ERROR(group_->AllGather(&own, rounds.data(), counts, DataType::kI64).Wait());
    int root = -1;
    for (int rank = 0; rank < group_->size(); ++rank) {
      if (rounds[rank] >= 0 && (root < 0 || rounds[rank] < rounds[root])) root = rank;
    }
    if (root < 0) return absl::DataLossError("nobody has the state");
    if (!fresh_ && state_.round == static_cast<uint64_t>(rounds[root]) + 1) state_ = before_;
    State agreed = state_;
    COHORT_RETURN_IF_ERROR(group_->Broadcast(&agreed, sizeof(agreed), DataType::kU8, root).Wait());
    auto plan = std::bit_cast<PlanWords>(plan_);
    COHORT_RETURN_IF_ERROR(group_->Broadcast(plan.data(), plan.size(), DataType::kI32, root).Wait());
    plan_ = std::bit_cast<Plan>(plan);
    if (!fresh_ && std::memcmp(&agreed, &state_, sizeof(agreed)) != 0) {
      return absl::DataLossError(absl::StrCat("the state of member ", Own(), " differs from that of member ",
                                              group_->members()[root]));
    }
    state_ = before_ = agreed;
    fresh_ = false;
    calls_ += 3;
    return absl::OkStatus();
  }

  // The next state, compared bit by bit.
  absl::Status Advance() {
    kind_ = "state";
    std::array<float, 64> step{};
    for (size_t i = 0; i < step.size(); ++i) {
      const uint32_t number =
          Random(static_cast<uint32_t>(state_.round), static_cast<uint32_t>(i), 2 + Own());
      step[i] = 1.0f / static_cast<float>(1 + number % 1009);
    }
    COHORT_RETURN_IF_ERROR(group_->AllReduce(step.data(), step.data(), step.size(), DataType::kF32).Wait());
    State next = state_;
    for (size_t i = 0; i < step.size(); ++i) next.values[i] = 0.9f * next.values[i] + step[i];
    next.round = state_.round + 1;
    next.collectives = state_.collectives + static_cast<uint64_t>(std::exchange(calls_, 0)) + 2;
    std::vector<State> all(group_->size());
    const std::vector<size_t> counts(group_->size(), sizeof(State));
    COHORT_RETURN_IF_ERROR(group_->AllGather(&next, all.data(), counts, DataType::kU8).Wait());
    for (int rank = 0; rank < group_->size(); ++rank) {
      if (std::memcmp(&all[rank], &next, sizeof(State)) == 0) continue;
      return absl::DataLossError(
          absl::StrCat("members ", Own(), " and ", group_->members()[rank], " have other states"));
    }
    before_ = std::exchange(state_, next);
    return absl::OkStatus();
  }

  absl::Status MakePlan(uint32_t round) {
    kind_ = "plan";
    PlanWords words{};
    if (group_->rank() == 0) {
      Plan plan = plan_;
      plan.edit = plan.over = 0;
      plan.leaver = -1;
      std::ifstream file(flags_.folder + "/plan");
      file >> plan.kind >> plan.members >> plan.spares >> plan.end >> plan.churn;
      if (plan.end > 0) plan.over = state_.collectives >= static_cast<uint64_t>(plan.end);
      const auto waiting = board_->Waiting();
      const bool joins =
          waiting.ok() && !waiting->empty() && group_->size() < plan.members && plan.spares == 0;
      const bool leaves = plan.churn != 0 && round > 0 && group_->size() > kLeastMembers &&
                          Random(group_->epoch(), round, 3) % 2 == 0;
      if (leaves) plan.leaver = static_cast<int32_t>(Random(group_->epoch(), round, 4) % group_->size());
      plan.edit = joins || leaves;
      words = std::bit_cast<PlanWords>(plan);
    }
    COHORT_RETURN_IF_ERROR(group_->Broadcast(words.data(), words.size(), DataType::kI32, 0).Wait());
    plan_ = std::bit_cast<Plan>(words);
    ++calls_;
    return absl::OkStatus();
  }

  comm::EditOptions Options(int at_most) const {
    comm::EditOptions options;
    options.patience = absl::Seconds(flags_.patience);
    options.quorum = true;
    options.replace = true;
    options.at_most = std::max(at_most, 0);
    return options;
  }

  // An edit that all know of. False: this process has left for good.
  absl::StatusOr<bool> Edit() {
    comm::EditOptions options = Options(plan_.members - group_->size() + (plan_.leaver >= 0 ? 1 : 0));
    options.leave = plan_.leaver == group_->rank();
    COHORT_ASSIGN_OR_RETURN(const bool stays, Adopt(options));
    if (stays) return true;
    // Some come back as what they are, others end, and tools/faults starts new processes.
    const bool comes_back = Random(state_.round, getpid(), 5) % 2 == 0;
    End();
    if (!comes_back) return false;
    COHORT_RETURN_IF_ERROR(Enter());
    return true;
  }

  absl::StatusOr<bool> Adopt(const comm::EditOptions& options) {
    kind_ = "edit";
    const std::vector<int> before = group_->members();
    COHORT_ASSIGN_OR_RETURN(const comm::MembershipChange change, group_->Grow(board_, options));
    std::vector<int> lost;
    for (const int rank : change.lost) lost.push_back(before[rank]);
    if (change.rank < 0) {
      Note("left", Json::object());
      return false;
    }
    Note("edited", {{"lost", lost}, {"members", group_->members()}, {"collectives", state_.collectives}});
    return true;
  }

  // After an error. False: the group goes on without this process, or this side must not go on.
  absl::StatusOr<bool> Repair() {
    absl::Status last;
    for (int attempt = 0; attempt < kEdits; ++attempt) {
      const absl::StatusOr<bool> adopted = Adopt(Options(plan_.spares));
      if (adopted.ok()) return true;
      last = adopted.status();
      if (last.code() == absl::StatusCode::kFailedPrecondition) {
        Note("out", {{"message", last.ToString()}});
        return false;
      }
      Note("edit_failed", {{"message", last.ToString()}});
    }
    return last;
  }

  const FaultsFlags flags_;
  const std::shared_ptr<comm::JoinBoard> board_;
  std::ofstream log_;
  std::mutex mutex_;  // group_, between this thread and the one that dumps
  std::unique_ptr<Communicator> group_;
  std::string kind_ = "start";
  Plan plan_;
  State state_, before_;
  bool was_in_ = false;
  bool fresh_ = false;  // has no state yet
  int calls_ = 0;       // since the last state
};

absl::Status BenchFaults(const FaultsFlags& flags) {
  if (flags.list) {
    for (int kind = 0; kind < NumFaultCalls(); ++kind) std::printf("%s\n", FaultCallName(kind));
    return absl::OkStatus();
  }
  if (flags.folder.empty())
    return absl::InvalidArgumentError("--folder is missing: start tools/faults instead");
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // of the tool
  sigset_t asked;
  sigemptyset(&asked);
  sigaddset(&asked, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &asked, nullptr);  // before any thread is started
  Member member(flags);
  std::thread([&member, asked] {
    for (int number = 0; sigwait(&asked, &number) == 0;) member.DumpFlightRecord();
  }).detach();
  const absl::Status status = member.Live();
  // Not by way of destructors of what the other thread uses.
  member.End();
  std::fflush(nullptr);
  if (!status.ok()) std::fprintf(stderr, "cohort: %s\n", status.ToString().c_str());
  _exit(status.ok() ? 0 : 1);
}

}  // namespace

void AddBenchFaults(CLI::App& bench, const Selected& selected) {
  CLI::App* app = bench.add_subcommand(
      "faults", "A member of a group that tools/faults hurts: start that, which starts this");
  const auto flags = std::make_shared<FaultsFlags>();
  app->add_flag("--list", flags->list, "Only print the kinds of collectives");
  app->add_option("--folder", flags->folder, "Where members meet, and write down what happens");
  app->add_option("--rank", flags->rank, "Of those who found the group; the others join it");
  app->add_option("--ranks", flags->ranks, "That found the group");
  app->add_option("--timeout", flags->timeout, "Seconds that an operation may take")->capture_default_str();
  app->add_option("--patience", flags->patience, "Seconds that an edit waits for a member")
      ->capture_default_str();
  app->callback([=] { selected([=] { return BenchFaults(*flags); }); });
}

}  // namespace cohort::tools
