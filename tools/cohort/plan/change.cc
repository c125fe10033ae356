// cohort plan change: what an elastic training would do if ranks were lost and others came: the mesh it would go on with,
// and who would send what to whom.
#include <ctime>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "parallel/elastic/elastic_mesh.h"
#include "parallel/elastic/next_mesh.h"
#include "parallel/elastic/sources.h"
#include "parallel/planner/cluster.h"
#include "parallel/planner/plan_config.h"
#include "runtime/config/config.h"
#include "runtime/file.h"
#include "runtime/ops/machine_rates.h"
#include "tools/cohort/plan/change_figure.h"
#include "tools/cohort/plan/moves.h"
#include "tools/cohort/plan/plan.h"

namespace cohort::tools {
namespace {

constexpr int kSimulatedHost = 8;         // ranks on a host
constexpr double kSimulatedTflops = 100;  // of a rank
constexpr int64_t kSequence = 4096;       // tokens, or what the model can
constexpr int64_t kSequencesARank = 8;

struct ChangeFlags {
  std::string model, from, cluster, compute = "bf16", svg;
  std::vector<int> lost;
  int joined = 0, members = 0;
  int64_t sequence_length = 0, global_batch = 0;
  double tflops = 0, memory_gb = 0;
  bool deterministic = false, without_snapshots = false;
  int links = 16;  // shown
};

double ProcessorSeconds() {
  timespec time = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Members by their numbers: those of the old mesh, then newcomers.
absl::StatusOr<parallel::planner::Cluster> ClusterOf(const ChangeFlags& flags, int members) {
  std::string text, source = flags.cluster;
  double tflops = flags.tflops;
  if (flags.cluster.empty()) {
    const bool simulated = flags.members > 0;
    const int host = simulated ? kSimulatedHost : members;
    text = absl::StrCat("cohort-topology 1\nhosts ", (members + host - 1) / host, " ranks ", host, "\n");
    source = "the members";
    if (simulated && tflops == 0) tflops = kSimulatedTflops;
  } else {
    COHORT_ASSIGN_OR_RETURN(text, runtime::ReadFile(flags.cluster));
  }
  const DataType compute = flags.compute == "bf16" ? DataType::kBF16 : DataType::kF32;
  const double flops = tflops > 0 ? tflops * 1e12 : runtime::MeasureMatMulRate(compute);
  COHORT_ASSIGN_OR_RETURN(
      const parallel::planner::Cluster all,
      parallel::planner::DescribedCluster(text, source, flops, std::llround(flags.memory_gb * 1e9)));
  if (all.ranks() < members) {
    return absl::InvalidArgumentError(absl::StrCat(source, " has ", all.ranks(), " ranks, and there are ",
                                                   members, " members, those that join included"));
  }
  return all.First(members);
}

v1::TrainConfig ConfigOf(const ChangeFlags& flags, const runtime::ModelConfig& model, const AskedMesh& from) {
  v1::TrainConfig config;
  parallel::planner::WritePlan(from.plan, config);
  const int64_t longest = model.max_position_embeddings;
  config.mutable_data()->set_sequence_length(
      static_cast<int>(flags.sequence_length > 0 ? flags.sequence_length : std::min(kSequence, longest)));
  const parallel::MeshShape& shape = from.plan.shape;
  const int64_t batches = std::max(1, from.ranks / (shape.pipeline * shape.context * shape.tensor));
  config.mutable_train()->set_global_batch(
      static_cast<int>(flags.global_batch > 0 ? flags.global_batch : kSequencesARank * batches));
  config.mutable_train()->set_dtype(flags.compute);
  config.mutable_train()->set_deterministic(flags.deterministic);
  config.mutable_model()->set_path(flags.model);
  runtime::ApplyDefaults(config, {.ranks = from.ranks});
  return config;
}

// The world after the change: members, and what they know of.
struct World {
  std::vector<int> members, hosts;  // by rank of the world
  std::vector<v1::ElasticHello> hellos;
  parallel::planner::Cluster cluster;  // of its ranks
};

World WorldAfter(const ChangeFlags& flags, const v1::ElasticMesh& before, int joined,
                 const parallel::planner::Cluster& cluster) {
  World world;
  world.cluster = cluster;
  const comm::HostMap& map = *cluster.machine.hosts;
  std::map<int, size_t> first_of_host;
  const int old = before.members_size();
  std::vector<comm::HostMap::Place> places;
  for (int member = 0; member < old + joined; ++member) {
    if (std::find(flags.lost.begin(), flags.lost.end(), member) != flags.lost.end()) continue;
    first_of_host.emplace(map.host_of(member), world.members.size());
    world.members.push_back(member);
    world.hosts.push_back(map.host_of(member));
    places.push_back({map.host_of(member), map.socket_of(member), map.numa_of(member)});
    v1::ElasticHello& hello = world.hellos.emplace_back();
    // All have the same mesh; that one says so is enough.
    if (world.members.size() == 1) *hello.add_meshes() = before;
  }
  world.cluster.machine.hosts = std::make_shared<const comm::HostMap>(places);
  const auto offer = [&](size_t rank, int number) {
    v1::ElasticOffer& offered = *world.hellos[rank].add_offers();
    offered.set_epoch(before.epoch());
    offered.set_mesh_rank(number);
    offered.set_step(1);
  };
  for (size_t rank = 0; rank < world.members.size(); ++rank) {
    if (world.members[rank] < old) offer(rank, world.members[rank]);
  }
  // What is lost is in the keeper of its host, if anybody is left there.
  for (const int lost : flags.lost) {
    const auto keeper = first_of_host.find(map.host_of(lost));
    if (keeper != first_of_host.end() && !flags.without_snapshots) offer(keeper->second, lost);
  }
  return world;
}

ChangeFigure FigureOf(const ChangeFlags& flags, const v1::ElasticMesh& before, const v1::ElasticMesh& after,
                      const World& world, const parallel::Source* source, const comm::HostMap& map) {
  ChangeFigure figure;
  const int old = before.members_size();
  std::map<int, size_t> row_of;  // by member
  for (int member = 0; member < map.size(); ++member) {
    row_of[member] = figure.rows.size();
    const bool lost = std::find(flags.lost.begin(), flags.lost.end(), member) != flags.lost.end();
    figure.rows.push_back({.name = absl::StrCat("member ", member),
                           .host = map.host_of(member),
                           .before = member < old ? member : -1,
                           .lost = lost,
                           .joined = member >= old});
  }
  for (int rank = 0; rank < after.members_size(); ++rank)
    figure.rows[row_of[after.members(rank)]].after = rank;
  if (source == nullptr) return figure;
  std::map<std::pair<size_t, size_t>, int64_t> links;
  for (const parallel::PieceCopy& copy : source->move.plan.copies) {
    const int64_t bytes = copy.elements() * static_cast<int64_t>(SizeOf(DataType::kF32));
    const size_t from = row_of[world.members[static_cast<size_t>(copy.source)]];
    const size_t to = row_of[world.members[static_cast<size_t>(copy.destination)]];
    if (copy.stays()) {
      figure.rows[to].stays += bytes;
    } else {
      links[{from, to}] += bytes;
    }
  }
  for (const auto& [ends, bytes] : links) {
    figure.arrows.push_back({static_cast<int>(ends.first), static_cast<int>(ends.second), bytes});
  }
  return figure;
}

std::string Who(const ChangeFlags& flags, int joined) {
  std::vector<std::string> words;
  if (!flags.lost.empty()) {
    const auto shown =
        flags.lost.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(flags.lost.size(), 16));
    words.push_back(absl::StrCat("lost ", absl::StrJoin(flags.lost.begin(), shown, ", "),
                                 shown == flags.lost.end() ? "" : ", ..."));
  }
  if (joined > 0) words.push_back(absl::StrCat(joined, joined == 1 ? " joins" : " join"));
  return words.empty() ? "nobody comes or goes" : absl::StrJoin(words, "; ");
}

absl::Status PlanChange(ChangeFlags flags) {
  COHORT_ASSIGN_OR_RETURN(const runtime::ModelConfig model, ReadModel(flags.model));
  if (flags.members > 0 && !flags.cluster.empty()) {
    return absl::InvalidArgumentError("--members simulates a cluster: leave --cluster out");
  }
  if (flags.members > 0 && !absl::StrContains(flags.from, "ranks=")) {
    flags.from = absl::StrCat("ranks=", flags.members, " ", flags.from);
  }
  COHORT_ASSIGN_OR_RETURN(const AskedMesh from, ParseMesh("--from", flags.from));
  for (const int rank : flags.lost) {
    if (rank < 0 || rank >= from.ranks) {
      return absl::InvalidArgumentError(
          absl::StrCat("--lost ", rank, ": the old mesh has ranks 0 to ", from.ranks - 1));
    }
  }
  COHORT_ASSIGN_OR_RETURN(const parallel::planner::Cluster cluster,
                          ClusterOf(flags, from.ranks + flags.joined));
  const comm::HostMap& map = *cluster.machine.hosts;
  v1::ElasticMesh before;
  *before.mutable_config() = ConfigOf(flags, model, from);
  for (int rank = 0; rank < from.ranks; ++rank) {
    before.add_members(rank);
    before.add_host_of(map.host_of(rank));
  }
  const absl::Status fits = parallel::ArrangementOf(before, model).status();
  if (!fits.ok())
    return absl::InvalidArgumentError(absl::StrCat("--from ", flags.from, ": ", fits.message()));

  const double begin = ProcessorSeconds();
  const World world = WorldAfter(flags, before, flags.joined, cluster);
  if (world.members.empty()) return absl::InvalidArgumentError("--lost: nobody is left, and nobody joins");
  COHORT_ASSIGN_OR_RETURN(const parallel::NextMesh next,
                          parallel::PlanNextMesh(before.config(), model, world.cluster));
  const double decided = ProcessorSeconds();
  v1::ElasticMesh after;
  after.set_epoch(1);
  *after.mutable_config() = next.config;
  std::vector<int> world_ranks;
  for (int rank = 0; rank < next.ranks; ++rank) {
    world_ranks.push_back(rank);
    after.add_members(world.members[static_cast<size_t>(rank)]);
    after.add_host_of(world.hosts[static_cast<size_t>(rank)]);
  }
  const absl::StatusOr<parallel::Source> source =
      parallel::ChooseSource(world.hellos, after, world_ranks, world.hosts, model);
  const double planned = ProcessorSeconds();
  if (!source.ok() && !absl::IsNotFound(source.status())) return source.status();

  const std::string mesh_before = parallel::DebugString(before, model),
                    mesh_after = parallel::DebugString(after, model);
  std::printf(
      "%s, %.1f million parameters; sequences of %d tokens, %d a step\nbefore: %s\n%s\nafter: %s\n  %s\n",
      model.model_type.c_str(), static_cast<double>(model.NumParameters()) / 1e6,
      before.config().data().sequence_length(), before.config().train().global_batch(), mesh_before.c_str(),
      Who(flags, flags.joined).c_str(), mesh_after.c_str(), next.why.c_str());
  if (source.ok()) {
    if (!flags.lost.empty()) {
      std::printf("what was lost is with %s\n",
                  flags.without_snapshots ? "other ranks" : "other ranks, or in the memory of its host");
    }
    std::printf("%s%s", DebugString(source->move.totals()).c_str(),
                MovesText(source->move, world.members, world.hosts, flags.links).c_str());
  } else {
    std::printf("the state comes from the newest checkpoint: %s\n",
                std::string(source.status().message()).c_str());
  }
  std::printf("planned in %.3f s of processor time: the mesh %.3f, the moves %.3f\n", planned - begin,
              decided - begin, planned - decided);
  if (flags.svg.empty()) return absl::OkStatus();
  ChangeFigure figure = FigureOf(flags, before, after, world, source.ok() ? &*source : nullptr, map);
  figure.title = absl::StrCat(model.model_type, ": ", Who(flags, flags.joined));
  figure.before = mesh_before;
  figure.after = source.ok() ? mesh_after : absl::StrCat(mesh_after, ", from the newest checkpoint");
  return runtime::WriteFileDurably(flags.svg, DrawChange(figure));
}

}  // namespace

void AddPlanChange(CLI::App& plan, const Selected& selected) {
  CLI::App* app = plan.add_subcommand(
      "change",
      "What an elastic training does when ranks are lost or join: the next mesh, and who moves what to whom");
  const auto flags = std::make_shared<ChangeFlags>();
  app->add_option("--model", flags->model, "A Hugging Face folder, or its config.json")->required();
  app->add_option(
         "--from", flags->from,
         "The mesh that trains, as ranks=8,shard=8,sharding=zero-3: ranks, pipeline, shard, context, tensor, "
         "expert, sharding, schedule")
      ->required();
  app->add_option("--lost", flags->lost, "Its ranks that are gone, as 3,7")->delimiter(',');
  app->add_option("--joined", flags->joined, "So many newcomers")->check(CLI::Range(0, 65536));
  app->add_option(
      "--cluster", flags->cluster,
      "Where ranks are, newcomers last: a file as examples/clusters/racks.topology (default: all on one "
      "host)");
  app->add_option("--members", flags->members, "Simulate a cluster of so many ranks, 8 on a host")
      ->check(CLI::Range(1, 65536));
  app->add_option("--sequence-length", flags->sequence_length,
                  "Tokens of a sequence (default: 4096, or what the model can)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  app->add_option(
         "--global-batch", flags->global_batch,
         "Sequences of a step, over all ranks (default: 8 for each part of the old mesh that has its own)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  app->add_option("--compute", flags->compute, "bf16 (default) or f32")
      ->check(CLI::IsMember({"f32", "bf16"}));
  app->add_flag("--deterministic", flags->deterministic,
                "The bits stay the same: axes that change them stay");
  app->add_flag("--without-snapshots", flags->without_snapshots,
                "Hosts keep nothing of their ranks: what a rank had alone is lost with it");
  app->add_option("--rank-tflops", flags->tflops,
                  "TFLOP/s of a rank's matrix products (default: measured here; of simulated ranks 100)")
      ->check(CLI::Range(1e-6, 1e6));
  app->add_option("--rank-memory", flags->memory_gb, "GB that a rank has (default: no limit)")
      ->check(CLI::Range(1e-3, 1e6));
  app->add_option("--links", flags->links, "Links that are shown, the busiest first")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  app->add_option("--svg", flags->svg, "Also draw the change into this file");
  app->callback([=] { selected([=] { return PlanChange(*flags); }); });
}

}  // namespace cohort::tools
