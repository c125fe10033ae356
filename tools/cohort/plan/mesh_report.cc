#include "tools/cohort/plan/mesh_report.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "nlohmann/json.hpp"
#include "parallel/planner/plan_config.h"
#include "tools/cohort/plan/svg.h"

namespace cohort::tools {
namespace {

using parallel::planner::Cluster;
using parallel::planner::MeshRanking;
using parallel::planner::PlannedMesh;
using parallel::planner::StepPart;
using parallel::planner::StepParts;
using parallel::planner::Work;

double TokensPerSecond(const PlannedMesh& mesh, const Work& work) {
  return static_cast<double>(work.global_batch) * static_cast<double>(work.sequence_length) / mesh.seconds();
}

// "[0 1 2 3]"; of many ranks the first ones and the last.
std::string GroupText(const std::vector<int>& ranks) {
  constexpr size_t kShown = 6;
  const auto first = ranks.begin();
  if (ranks.size() <= kShown + 1) return absl::StrCat("[", absl::StrJoin(ranks, " "), "]");
  return absl::StrCat("[", absl::StrJoin(first, first + kShown, " "), " .. ", ranks.back(), "]");
}

// The axes that have more than one rank, a line each, with their first groups.
std::string Arrangement(const MeshRanking& ranking, const Cluster& cluster) {
  constexpr size_t kShown = 4;
  std::vector<int> host_of;
  for (int rank = 0; rank < cluster.ranks(); ++rank) host_of.push_back(cluster.machine.hosts->host_of(rank));
  const auto mesh = parallel::Mesh::Create(ranking.best[0].plan.shape, host_of);
  COHORT_CHECK(mesh.ok(), "a planned mesh that cannot be: %s", mesh.status().ToString().c_str());
  using parallel::Axis;
  std::string text;
  for (const Axis axis : {Axis::kPipeline, Axis::kReplicate, Axis::kShard, Axis::kContext, Axis::kTensor,
                          Axis::kExpertData, Axis::kExpert}) {
    // Without expert groups the sparse view says nothing new.
    if (mesh->Size(axis) == 1 || (axis == Axis::kExpertData && mesh->Size(Axis::kExpert) == 1)) continue;
    const std::vector<std::vector<int>> groups = mesh->Groups(axis);
    int across = 0;
    for (const std::vector<int>& group : groups) {
      const auto elsewhere = [&](int rank) { return host_of[rank] != host_of[group[0]]; };
      across += std::any_of(group.begin(), group.end(), elsewhere) ? 1 : 0;
    }
    absl::StrAppend(&text, "  ", Name(axis), " ", mesh->Size(axis), ":");
    for (size_t i = 0; i < std::min(groups.size(), kShown); ++i)
      absl::StrAppend(&text, " ", GroupText(groups[i]));
    if (groups.size() > kShown) absl::StrAppend(&text, " .. ", groups.size(), " groups");
    absl::StrAppend(&text, across == 0                                ? ", each on one host\n"
                           : across < static_cast<int>(groups.size()) ? ", some across hosts\n"
                                                                      : ", across hosts\n");
  }
  return text;
}

nlohmann::ordered_json RowOf(const PlannedMesh& mesh, const Work& work) {
  nlohmann::ordered_json row;
  row["mesh"] = mesh.plan.DebugString();
  row["seconds"] = mesh.seconds();
  row["tokens_per_second"] = TokensPerSecond(mesh, work);
  row["micro_batches"] = mesh.price.micro_batches;
  row["simulated"] = mesh.price.simulated;
  for (const StepPart& part : StepParts()) row["parts"][part.name] = mesh.price.time.*part.seconds;
  row["hidden"] = mesh.price.time.hidden;
  const parallel::planner::StepMemory& memory = mesh.price.memory;
  row["bytes"] = {{"parameters", memory.parameters}, {"gathered", memory.gathered},
                  {"gradients", memory.gradients},   {"reducing", memory.reducing},
                  {"optimizer", memory.optimizer},   {"activations", memory.activations},
                  {"working", memory.working},       {"total", memory.total()}};
  return row;
}

}  // namespace

std::string MeshText(const MeshRanking& ranking, const Cluster& cluster, const Work& work) {
  const PlannedMesh& best = ranking.best[0];
  const int hosts = cluster.machine.hosts->num_hosts();
  std::string text =
      absl::StrFormat("%d rank%s on %d host%s, %.4g TFLOP/s each", cluster.ranks(),
                      cluster.ranks() == 1 ? "" : "s", hosts, hosts == 1 ? "" : "s", cluster.flops / 1e12);
  if (cluster.cores < 1)
    absl::StrAppendFormat(&text, " alone, %.0f%% of it where all compute", 100 * cluster.cores);
  if (cluster.meeting > 0) {
    absl::StrAppend(&text, "; to meet takes them ", svg::TimeText(cluster.meeting), ", and up to ",
                    svg::TimeText(cluster.drift), " more after computing");
  }
  absl::StrAppend(&text, "\nchosen: ", best.plan.DebugString(), "\n", Arrangement(ranking, cluster));
  absl::StrAppend(&text, "  sharding: ", best.plan.sharding.DebugString(), "; ", best.price.micro_batches,
                  " micro-batches of up to ", best.plan.micro_batch, " sequences\n", ranking.Why(cluster),
                  "\n\n");
  const auto head = [&](const char* title) {
    absl::StrAppend(&text, title, "\n");
    absl::StrAppendFormat(&text, "%10s %10s", "s", "tokens/s");
    for (const StepPart& part : StepParts()) absl::StrAppendFormat(&text, " %10s", part.name);
    absl::StrAppendFormat(&text, " %8s %8s %8s  %s\n", "state GB", "act. GB", "all GB", "mesh");
  };
  const auto row = [&](const PlannedMesh& mesh) {
    absl::StrAppendFormat(&text, "%10.4g %10.4g", mesh.seconds(), TokensPerSecond(mesh, work));
    for (const StepPart& part : StepParts())
      absl::StrAppendFormat(&text, " %10.3g", mesh.price.time.*part.seconds);
    const parallel::planner::StepMemory& memory = mesh.price.memory;
    absl::StrAppendFormat(&text, " %8.3g %8.3g %8.3g  %s",
                          (memory.parameters + memory.gradients + memory.optimizer) / 1e9,
                          memory.activations / 1e9, memory.total() / 1e9, mesh.plan.DebugString());
  };
  head("the fastest plans:");
  for (const PlannedMesh& mesh : ranking.best) {
    row(mesh);
    text += '\n';
  }
  if (!ranking.others.empty()) {
    text += '\n';
    head("the best plan of other meshes, and what it loses by:");
    for (const PlannedMesh& mesh : ranking.others) {
      row(mesh);
      absl::StrAppend(&text, "  (", ranking.WhyNot(mesh, cluster), ")\n");
    }
  }
  absl::StrAppendFormat(&text, "\n%d legal meshes, %d plans of them priced", ranking.meshes, ranking.priced);
  if (ranking.bounded > 0) {
    absl::StrAppendFormat(&text, "; %d meshes were not, as computing alone takes them longer",
                          ranking.bounded);
  }
  text += '\n';
  for (const parallel::planner::Refusal& row : ranking.refused.rows()) {
    absl::StrAppend(&text, "refused ", row.DebugString(), "\n");
  }
  absl::StrAppend(&text,
                  "\nin a configuration (or parallel.mesh: auto, which plans for the ranks that run):\n",
                  parallel::planner::PlanYaml(best.plan, work));
  return text;
}

std::string MeshJson(const MeshRanking& ranking, const Cluster& cluster, const Work& work) {
  nlohmann::ordered_json json;
  json["ranks"] = cluster.ranks();
  json["hosts"] = cluster.machine.hosts->num_hosts();
  json["rank_flops"] = cluster.flops;
  json["rank_bytes"] = cluster.memory;
  json["why"] = ranking.Why(cluster);
  json["error"] = ranking.error;
  json["measured_steps"] = ranking.measured_steps;
  json["rank_cores"] = cluster.cores;
  json["meeting_seconds"] = cluster.meeting;
  json["drift_seconds"] = cluster.drift;
  json["drift_after_seconds"] = cluster.drift_after;
  for (const PlannedMesh& mesh : ranking.best) json["ranking"].push_back(RowOf(mesh, work));
  for (const PlannedMesh& mesh : ranking.others) {
    json["others"].push_back(RowOf(mesh, work));
    json["others"].back()["why_not"] = ranking.WhyNot(mesh, cluster);
  }
  if (ranking.data_parallel.has_value()) {
    json["data_parallel"] = RowOf(*ranking.data_parallel, work);
    json["data_parallel"]["fits"] = ranking.data_parallel_fits;
  }
  json["legal_meshes"] = ranking.meshes;
  json["priced_plans"] = ranking.priced;
  json["bounded_meshes"] = ranking.bounded;
  json["refused"] = nlohmann::ordered_json::array();
  for (const parallel::planner::Refusal& row : ranking.refused.rows()) {
    json["refused"].push_back(
        {{"what", row.what}, {"number", row.number}, {"reason", row.reason}, {"as", row.as}});
  }
  return json.dump(2) + "\n";
}

std::string MeshFigure(const std::string& title, const MeshRanking& ranking) {
  constexpr double kWidth = 960, kLeft = 20, kBar = 18, kRow = 44, kTop = 70, kRoom = 780;
  const double height = kTop + kRow * static_cast<double>(ranking.best.size()) + 20;
  double longest = 0;
  for (const PlannedMesh& mesh : ranking.best) longest = std::max(longest, mesh.seconds());
  std::string figure = svg::Begin(kWidth, height);
  figure += svg::Text(kLeft, 24, "start", title, 15);
  static_assert(std::size(svg::kColours) >= 9);
  const auto colour = [](size_t part) {
    return StepParts()[part].seconds == &parallel::planner::StepTime::bubble
               ? "#d9d9d9"  // nothing is done in it
               : svg::kColours[part % std::size(svg::kColours)];
  };
  double x = kLeft;
  for (size_t i = 0; i < StepParts().size(); ++i) {
    figure += svg::Rectangle(x, 40, 10, 10, absl::StrCat("fill=\"", colour(i), "\""));
    figure += svg::Text(x + 14, 49, "start", StepParts()[i].name, 11);
    x += 92;
  }
  double y = kTop;
  for (const PlannedMesh& mesh : ranking.best) {
    figure += svg::Text(kLeft, y + 10, "start", mesh.plan.DebugString(), 11);
    x = kLeft;
    for (size_t i = 0; i < StepParts().size(); ++i) {
      const double width = mesh.price.time.*StepParts()[i].seconds / longest * kRoom;
      if (width <= 0) continue;
      figure += svg::Rectangle(x, y + 14, width, kBar, absl::StrCat("fill=\"", colour(i), "\""));
      x += width;
    }
    figure += svg::Text(x + 6, y + 27, "start", svg::TimeText(mesh.seconds()), 11);
    y += kRow;
  }
  return figure + svg::kEnd;
}

}  // namespace cohort::tools
