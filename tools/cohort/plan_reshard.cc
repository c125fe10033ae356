// cohort plan reshard: what moves where when a training goes on with another mesh, without its disk.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "comm/check.h"
#include "parallel/planner/mesh_plan.h"
#include "parallel/reshard/move_training.h"
#include "runtime/file.h"
#include "tools/cohort/plan.h"
#include "tools/cohort/plan_topology.h"

namespace cohort::tools {
namespace {

using parallel::Layout;
using parallel::PieceCopy;

struct ReshardFlags {
  std::string model, from, to, topology;
  std::vector<int> lost;
  int links = 16;  // shown
};

// What a mesh is called on the command line.
struct AskedMesh {
  int ranks = 1;
  parallel::Arrangement arrangement;
};

// "ranks=8 tensor=2 sharding=zero-1": as `plan mesh` takes it, and how many ranks; without that, as few as it needs.
absl::StatusOr<AskedMesh> ParseMesh(const std::string& flag, const std::string& text) {
  std::vector<absl::string_view> rest;
  int ranks = 0;
  for (absl::string_view item : absl::StrSplit(text, absl::ByAnyChar(", \t"), absl::SkipEmpty())) {
    if (!absl::ConsumePrefix(&item, "ranks=")) {
      rest.push_back(item);
    } else if (!absl::SimpleAtoi(item, &ranks) || ranks < 1 || ranks > 1 << 16) {
      return absl::InvalidArgumentError(absl::StrCat(flag, " ", text, ": ranks are 1 to 65536"));
    }
  }
  const auto choices = parallel::planner::ParseChoices(absl::StrJoin(rest, " "));
  if (!choices.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(flag, " ", text, ": ", choices.status().message()));
  }
  const parallel::planner::MeshPlan plan = choices->Complete(1);
  const parallel::MeshShape& shape = plan.shape;
  const int needed = shape.pipeline * std::max(shape.shard * shape.context * shape.tensor, shape.expert);
  return AskedMesh{ranks > 0 ? ranks : needed,
                   {.shape = shape,
                    .sharding = plan.sharding,
                    .schedule = plan.schedule,
                    .stages_per_rank = shape.pipeline > 1 ? plan.chunks : 1}};
}

absl::StatusOr<runtime::ModelConfig> ReadModel(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return runtime::ModelConfig::Load(path);
  COHORT_ASSIGN_OR_RETURN(const std::string text, runtime::ReadFile(path));
  return runtime::ModelConfig::FromJson(text, path);
}

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

// Bytes and messages from one to another, the most first.
struct Link {
  std::string name;
  int64_t bytes = 0, messages = 0;
};
void Print(const char* what, std::vector<Link> links, int shown) {
  std::stable_sort(links.begin(), links.end(),
                   [](const Link& a, const Link& b) { return a.bytes > b.bytes; });
  const auto listed = std::min(links.size(), static_cast<size_t>(shown));
  for (size_t i = 0; i < listed; ++i) {
    std::printf("  %-24s %14d bytes in %d messages\n", links[i].name.c_str(),
                static_cast<int>(links[i].bytes), static_cast<int>(links[i].messages));
  }
  if (listed < links.size()) std::printf("  and %zu more %s (--links)\n", links.size() - listed, what);
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
  std::map<std::pair<int, int>, Link> ranks, between;
  for (const PieceCopy& copy : move.plan.copies) {
    if (copy.stays()) continue;
    const int64_t bytes = copy.elements() * static_cast<int64_t>(SizeOf(DataType::kF32));
    const auto add = [&](auto& links, const char* what, int a, int b) {
      Link& link = links[{a, b}];
      link.name = absl::StrFormat("%s %d -> %d", what, a, b);
      link.bytes += bytes;
      ++link.messages;
    };
    const auto source = static_cast<size_t>(copy.source), target = static_cast<size_t>(copy.destination);
    add(ranks, "rank", processes[source], processes[target]);
    if (move_hosts[source] != move_hosts[target])
      add(between, "host", move_hosts[source], move_hosts[target]);
  }
  const auto list = [](const auto& links) {
    std::vector<Link> all;
    for (const auto& [ends, link] : links) all.push_back(link);
    return all;
  };
  if (!between.empty()) std::printf("between hosts:\n");
  Print("hosts", list(between), flags.links);
  if (!ranks.empty()) std::printf("between ranks (numbers of the old mesh, then newcomers):\n");
  Print("pairs", list(ranks), flags.links);
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
