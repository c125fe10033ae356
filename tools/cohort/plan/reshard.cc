// cohort plan reshard: what moves where when a training goes on with another mesh, without its disk.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/reshard/move_training.h"
#include "tools/cohort/plan/moves.h"
#include "tools/cohort/plan/plan.h"
#include "tools/cohort/plan/topology.h"

namespace cohort::tools {
namespace {

using parallel::Layout;

struct ReshardFlags {
  std::string model, from, to, topology;
  std::vector<int> lost;
  int links = 16;  // shown
};

// The host of each of so many processes; all on one where nobody describes them.
absl::StatusOr<std::vector<int>> HostsOf(const ReshardFlags& flags, int processes) {
  std::vector<int> hosts(static_cast<size_t>(processes), 0);
  if (flags.topology.empty()) return hosts;
  COHORT_ASSIGN_OR_RETURN(const comm::Machine machine, ReadMachine(flags.topology));
  if (machine.hosts->size() < processes) {
    return absl::InvalidArgumentError(absl::StrCat(flags.topology, " has ", machine.hosts->size(),
                                                   " ranks, and the meshes together ", processes));
  }
  for (int p = 0; p < processes; ++p) hosts[static_cast<size_t>(p)] = machine.hosts->host_of(p);
  return hosts;
}

absl::StatusOr<Layout> LayoutOf(const runtime::ModelConfig& config, const AskedMesh& asked,
                                const std::vector<int>& host_of) {
  COHORT_ASSIGN_OR_RETURN(const parallel::Mesh mesh,
                          parallel::Mesh::Create(asked.arrangement.shape, host_of));
  return parallel::TrainingLayout(config, asked.arrangement, mesh);
}

absl::Status PlanReshard(const ReshardFlags& flags) {
  COHORT_ASSIGN_OR_RETURN(const runtime::ModelConfig config, ReadModel(flags.model));
  COHORT_ASSIGN_OR_RETURN(const AskedMesh from, ParseMesh("--from", flags.from));
  COHORT_ASSIGN_OR_RETURN(const AskedMesh to, ParseMesh("--to", flags.to));
  for (const int rank : flags.lost) {
    if (rank < 0 || rank >= from.ranks) {
      return absl::InvalidArgumentError(
          absl::StrCat("--lost ", rank, ": the old mesh has ranks 0 to ", from.ranks - 1));
    }
  }
  // Processes keep their numbers: first the old mesh's, of which lost ones are none of the new mesh, then newcomers.
  parallel::Members members;
  std::vector<int> processes;  // by rank of the move
  int next = 0;
  for (int process = 0; process < from.ranks || next < to.ranks; ++process) {
    const bool old = process < from.ranks;
    if (old && std::count(flags.lost.begin(), flags.lost.end(), process) > 0) continue;
    processes.push_back(process);
    members.before.push_back(old ? std::vector<int>{process} : std::vector<int>{});
    members.after.push_back(next < to.ranks ? next++ : -1);
  }
  COHORT_ASSIGN_OR_RETURN(const std::vector<int> hosts,
                          HostsOf(flags, std::max(from.ranks, processes.empty() ? 0 : processes.back() + 1)));
  std::vector<int> old_hosts(hosts.begin(), hosts.begin() + from.ranks), new_hosts, move_hosts;
  for (size_t r = 0; r < processes.size(); ++r) {
    move_hosts.push_back(hosts[static_cast<size_t>(processes[r])]);
    if (members.after[r] >= 0) new_hosts.push_back(move_hosts.back());
  }
  COHORT_ASSIGN_OR_RETURN(const Layout before, LayoutOf(config, from, old_hosts));
  COHORT_ASSIGN_OR_RETURN(const Layout after, LayoutOf(config, to, new_hosts));
  COHORT_ASSIGN_OR_RETURN(const parallel::Move move, parallel::PlanMove(before, after, members, move_hosts));
  COHORT_RETURN_IF_ERROR(parallel::CheckReshard(move.before, move.after, move.options, move.plan));

  const parallel::ReshardTotals totals = move.totals();
  std::printf(
      "%s: masters and moments of %.1f million parameters\nfrom %d ranks (%s; %s)\nto %d ranks (%s; %s)\n%s",
      config.model_type.c_str(), static_cast<double>(config.NumParameters()) / 1e6, from.ranks,
      from.arrangement.shape.DebugString().c_str(), from.arrangement.sharding.DebugString().c_str(), to.ranks,
      to.arrangement.shape.DebugString().c_str(), to.arrangement.sharding.DebugString().c_str(),
      DebugString(totals).c_str());
  std::printf("%s", MovesText(move, processes, move_hosts, flags.links).c_str());
  return absl::OkStatus();
}

}  // namespace

void AddPlanReshard(CLI::App& plan, const Selected& selected) {
  CLI::App* app = plan.add_subcommand(
      "reshard", "What moves, and between whom, when a training goes on with another mesh");
  const auto flags = std::make_shared<ReshardFlags>();
  app->add_option("--model", flags->model, "A Hugging Face folder, or its config.json")->required();
  app->add_option(
         "--from", flags->from,
         "The old mesh, as ranks=8,tensor=2,sharding=zero-1: ranks, pipeline, shard, context, tensor, "
         "expert, sharding, schedule")
      ->required();
  app->add_option("--to", flags->to, "The new mesh, in the same words")->required();
  app->add_option("--lost", flags->lost, "Ranks of the old mesh that are gone, as 3,7")->delimiter(',');
  app->add_option("--topology", flags->topology,
                  "Where ranks are: a file as `cohort plan topology` writes it (default: all on one host)");
  app->add_option("--links", flags->links, "Links that are shown, the busiest first")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  app->callback([=] { selected([=] { return PlanReshard(*flags); }); });
}

}  // namespace cohort::tools
