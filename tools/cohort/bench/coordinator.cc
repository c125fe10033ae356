// cohort bench coordinator: what the coordinator's state, and the coordinator itself, take with many members.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "runtime/elastic/coordinator/client.h"
#include "runtime/elastic/coordinator/cluster_state.h"
#include "runtime/elastic/coordinator/coordinator.h"
#include "tools/cohort/bench/bench.h"

namespace cohort::tools {
namespace {

using cluster::ClusterState;
using cluster::Outcome;

struct CoordinatorBenchFlags {
  int members = 10000, turns = 21;
  std::string folder = "coordinator-bench";
};

const absl::Duration kBenchLease = absl::Minutes(10);  // nobody renews meanwhile

double TimeOf(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void Row(const std::string& what, std::vector<double> times) {
  std::sort(times.begin(), times.end());
  std::printf("%-44s %10.3f ms (median of %zu, %.3f to %.3f)\n", what.c_str(), 1e3 * times[times.size() / 2],
              times.size(), 1e3 * times.front(), 1e3 * times.back());
}

void Measure(const std::string& what, int turns, const std::function<void(int turn)>& work) {
  std::vector<double> times;
  for (int turn = 0; turn < turns; ++turn) times.push_back(TimeOf([&] { work(turn); }));
  Row(what, std::move(times));
}

v1::ClusterCommand JoinCommand(const std::string& name) {
  v1::ClusterCommand command;
  v1::JoinRequest& join = *command.mutable_join();
  join.set_job("bench");
  join.set_name(name);
  join.set_session(name);
  join.set_host(absl::StrCat("host of ", name));
  join.set_address("10.0.0.1:12345");
  join.set_role(v1::MEMBER_ROLE_LAUNCHED);
  return command;
}

// Applies a command that must be fine.
Outcome Do(ClusterState& state, const v1::ClusterCommand& command, absl::Time now) {
  Outcome outcome = state.Apply(command, now);
  COHORT_CHECK(outcome.status.ok(), "%s", outcome.status.ToString().c_str());
  return outcome;
}

void BenchState(const CoordinatorBenchFlags& flags) {
  std::printf("the state alone, %d members\n", flags.members);
  ClusterState state(kBenchLease);
  const absl::Time now = absl::Now();
  std::vector<std::string> names;
  std::vector<double> joins;
  for (int i = 0; i < flags.members; ++i) {
    names.push_back(absl::StrCat("member-", i));
    joins.push_back(TimeOf([&] { Do(state, JoinCommand(names.back()), now); }));
  }
  Row("Join", joins);
  uint64_t epoch = 0;
  Measure("AdvanceEpoch of all members", flags.turns, [&](int) {
    v1::ClusterCommand command;
    v1::AdvanceEpochRequest& advance = *command.mutable_advance_epoch();
    advance.set_member_id(1);
    advance.set_from(epoch);
    advance.set_to(++epoch);
    advance.mutable_members()->Add(names.begin(), names.end());
    Do(state, command, now);
  });
  v1::ClusterCommand renew;
  renew.mutable_renew()->mutable_report()->set_step(7);
  renew.mutable_renew()->mutable_report()->set_tokens(7);
  renew.mutable_renew()->mutable_report()->set_compute_seconds(7);
  std::vector<double> renewals;
  for (int i = 0; i < flags.members; ++i) {
    renew.mutable_renew()->set_member_id(i + 1);
    renewals.push_back(TimeOf([&] { Do(state, renew, now); }));
  }
  Row("Renew", renewals);
  v1::ClusterCommand tick;
  tick.mutable_tick();
  Measure("Tick, nobody expires", flags.turns, [&](int) { Do(state, tick, now); });
  Measure("Describe", flags.turns, [&](int) { (void)state.Describe(100, now); });
  std::string bytes;
  Measure("Snapshot, as bytes", flags.turns, [&](int) { bytes = state.Snapshot().SerializeAsString(); });
  Measure("Restore, of bytes", flags.turns, [&](int) {
    v1::ClusterSnapshot snapshot;
    COHORT_CHECK(snapshot.ParseFromString(bytes) && ClusterState::Restore(snapshot, kBenchLease).ok(),
                 "a snapshot is not one");
  });
  std::vector<double> expiries;
  for (int turn = 0; turn < flags.turns; ++turn) {
    ClusterState copy = state;
    Do(copy, tick, now);
    absl::Time later = now;
    for (; later < now + kBenchLease; later += kBenchLease / 4) Do(copy, tick, later);
    expiries.push_back(TimeOf([&] { Do(copy, tick, now + kBenchLease + absl::Seconds(1)); }));
    COHORT_CHECK(copy.totals().leases_expired() == flags.members, "not all have expired");
  }
  Row("Tick, everybody expires", expiries);
}

absl::Status BenchService(const CoordinatorBenchFlags& flags) {
  // The members are names in the epoch; few of them are processes that have joined.
  std::printf("over gRPC, its journal in %s, an epoch of %d names\n", flags.folder.c_str(), flags.members);
  if (std::filesystem::exists(flags.folder)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--folder: ", flags.folder, " is there already; name one that is not"));
  }
  cluster::CoordinatorOptions options;
  options.state = flags.folder;
  options.lease = kBenchLease;
  COHORT_ASSIGN_OR_RETURN(const auto coordinator, cluster::Coordinator::Start(options));
  const auto deadline = [] { return absl::Now() + absl::Seconds(60); };
  std::vector<std::unique_ptr<cluster::Client>> clients;
  const auto join = [&](const std::string& name) -> absl::Status {
    COHORT_ASSIGN_OR_RETURN(
        auto client,
        cluster::Client::Create(
            {.coordinator = absl::StrCat("127.0.0.1:", coordinator->port()), .job = "bench", .name = name}));
    COHORT_RETURN_IF_ERROR(client->Join(deadline()));
    clients.push_back(std::move(client));
    return absl::OkStatus();
  };
  absl::Status status;
  std::vector<std::string> names = {"leader"};
  COHORT_RETURN_IF_ERROR(join("leader"));
  for (int i = 1; i < flags.members; ++i) names.push_back(absl::StrCat("member-", i));
  uint64_t epoch = 0;
  Measure("AdvanceEpoch of all members, durable", flags.turns, [&](int) {
    status.Update(clients[0]->AdvanceEpoch({epoch, epoch + 1, names, "", 0, ""}, deadline()).status());
    ++epoch;
  });
  Measure("Put, durable", flags.turns, [&](int turn) {
    status.Update(clients[0]->Put("launch", absl::StrCat(turn), std::string(200, 'x'), deadline()));
  });
  Measure("BoardWaiting, which changes nothing", flags.turns,
          [&](int) { status.Update(clients[0]->BoardWaiting(deadline()).status()); });
  Measure("Join, durable", flags.turns, [&](int turn) { status.Update(join(absl::StrCat("late ", turn))); });
  Measure("Describe, few of them joined", flags.turns,
          [&](int) { status.Update(clients[0]->Describe(100, deadline()).status()); });
  return status;
}

absl::Status BenchCoordinator(const CoordinatorBenchFlags& flags) {
  BenchState(flags);
  const absl::Status status = BenchService(flags);
  if (!absl::IsInvalidArgument(status)) std::filesystem::remove_all(flags.folder);
  return status;
}

}  // namespace

void AddBenchCoordinator(CLI::App& bench, const Selected& selected) {
  CLI::App* coordinator = bench.add_subcommand(
      "coordinator", "What the coordinator of an elastic job takes to answer, with many members");
  const auto flags = std::make_shared<CoordinatorBenchFlags>();
  coordinator->add_option("--members", flags->members, "Members")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  coordinator->add_option("--turns", flags->turns, "Times that each is measured")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  coordinator->add_option("--folder", flags->folder, "Where its journal is, for as long as this runs")
      ->capture_default_str();
  coordinator->callback([=] { selected([=] { return BenchCoordinator(*flags); }); });
}

}  // namespace cohort::tools
