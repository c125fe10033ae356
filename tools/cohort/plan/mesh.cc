// cohort plan mesh: which arrangement of ranks trains a model fastest on a described cluster, or on this job's ranks.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "comm/check.h"
#include "parallel/planner/calibration.h"
#include "parallel/planner/planner.h"
#include "runtime/device/device.h"
#include "runtime/file.h"
#include "runtime/ops/machine_rates.h"
#include "tools/cohort/plan/mesh_report.h"
#include "tools/cohort/plan/moves.h"
#include "tools/cohort/plan/plan.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

using parallel::planner::Calibration;
using parallel::planner::Choices;
using parallel::planner::Cluster;
using parallel::planner::MeshRanking;
using parallel::planner::ModelCost;
using parallel::planner::Work;

struct MeshFlags {
  std::string model, cluster, mesh, measured, compute = "f32", json, svg;
  int ranks = 0;  // 0: all of the cluster
  size_t keep = parallel::planner::policy::kKeptPlans;
  int64_t sequence_length = 0, global_batch = 0;
  double tflops = 0, memory_gb = 0;  // of a rank; 0: measured here, no limit
  double cores = 0;                  // of a rank; 0: one, of running ranks measured
  double overlap = parallel::planner::policy::kOverlap;
};

// Where nobody describes one, the ranks that run; `rank` is this one's.
absl::StatusOr<Cluster> ReadCluster(const MeshFlags& flags, const ModelCost& model, const Work& work,
                                    int* rank) {
  const DataType compute = flags.compute == "bf16" ? DataType::kBF16 : DataType::kF32;
  Cluster cluster;
  if (flags.cluster.empty()) {
    COHORT_ASSIGN_OR_RETURN(const auto world, JoinWorld(absl::Minutes(1)));
    *rank = world->rank();
    runtime::SetCpuThreads(std::max(1, HostCores() / RanksOnHost(*world)));  // as training would
    COHORT_ASSIGN_OR_RETURN(
        cluster, parallel::planner::RunningCluster(*world, runtime::CpuDevice(), compute, model, work));
    if (flags.tflops > 0) cluster.flops = flags.tflops * 1e12;
    if (flags.memory_gb > 0) cluster.memory = std::llround(flags.memory_gb * 1e9);
  } else {
    COHORT_ASSIGN_OR_RETURN(const std::string text, runtime::ReadFile(flags.cluster));
    const double flops = flags.tflops > 0 ? flags.tflops * 1e12 : runtime::MeasureMatMulRate(compute);
    COHORT_ASSIGN_OR_RETURN(cluster, parallel::planner::DescribedCluster(
                                         text, flags.cluster, flops, std::llround(flags.memory_gb * 1e9)));
  }
  if (flags.cores > 0) cluster.cores = flags.cores;
  cluster.overlap = flags.overlap;
  return flags.ranks == 0 ? cluster : cluster.First(flags.ranks);
}

absl::Status PlanMesh(const MeshFlags& flags) {
  // What is wrong with the flags is said before anything is measured.
  COHORT_ASSIGN_OR_RETURN(const Choices choices, parallel::planner::ParseChoices(flags.mesh));
  COHORT_ASSIGN_OR_RETURN(const runtime::ModelConfig config, ReadModel(flags.model));
  if (flags.sequence_length > config.max_position_embeddings) {
    return absl::InvalidArgumentError(absl::StrCat("--sequence-length ", flags.sequence_length,
                                                   " is more than the model's max_position_embeddings ",
                                                   config.max_position_embeddings));
  }
  Work work;
  work.sequence_length = flags.sequence_length;
  work.global_batch = flags.global_batch;
  work.compute_bytes = flags.compute == "bf16" ? 2 : 4;
  const ModelCost model(config, work.sequence_length);
  int rank = 0;
  COHORT_ASSIGN_OR_RETURN(Cluster cluster, ReadCluster(flags, model, work, &rank));
  Calibration calibration;
  if (!flags.measured.empty()) {
    COHORT_ASSIGN_OR_RETURN(const std::string text, runtime::ReadFile(flags.measured));
    COHORT_ASSIGN_OR_RETURN(const auto steps, parallel::planner::ParseMeasuredSteps(text, flags.measured, 1));
    COHORT_ASSIGN_OR_RETURN(calibration, parallel::planner::Calibrate(model, work, cluster, steps));
    cluster = calibration.Apply(std::move(cluster));
  }
  COHORT_ASSIGN_OR_RETURN(MeshRanking ranking,
                          parallel::planner::RankMeshes(model, work, cluster, choices, flags.keep));
  if (calibration.steps > 0) {
    ranking.error = calibration.error;
    ranking.measured_steps = calibration.steps;
  }
  if (rank != 0) return absl::OkStatus();
  std::printf("%s", MeshText(ranking, cluster, work).c_str());
  if (flags.tflops <= 0 && !flags.cluster.empty()) {
    std::printf(
        "the rate of a rank was measured here, by one process with this machine for itself; --rank-tflops "
        "declares another\n");
  }
  if (flags.memory_gb <= 0 && !flags.cluster.empty()) {
    std::printf("memory has no limit; --rank-memory sets one\n");
  }
  if (!flags.json.empty()) {
    COHORT_RETURN_IF_ERROR(runtime::WriteFileDurably(flags.json, MeshJson(ranking, cluster, work)));
  }
  if (flags.svg.empty()) return absl::OkStatus();
  const std::string title =
      absl::StrCat(config.model_type, ", ", cluster.ranks(), " ranks: seconds of a step");
  return runtime::WriteFileDurably(flags.svg, MeshFigure(title, ranking));
}

}  // namespace

void AddPlanMesh(CLI::App& plan, const Selected& selected) {
  CLI::App* app = plan.add_subcommand(
      "mesh", "The arrangement of ranks that trains a model fastest: every legal one priced and ranked");
  const auto flags = std::make_shared<MeshFlags>();
  app->add_option("--model", flags->model, "A Hugging Face folder, or its config.json")->required();
  app->add_option(
      "--cluster", flags->cluster,
      "The cluster, a file as examples/clusters/racks.topology (default: the ranks that mpirun started)");
  app->add_option("--ranks", flags->ranks, "Plan for the cluster's first ranks (default: all)")
      ->check(CLI::Range(1, 1'000'000));
  app->add_option("--sequence-length", flags->sequence_length, "Tokens of a sequence")
      ->required()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  app->add_option("--global-batch", flags->global_batch, "Sequences of a step, over all ranks")
      ->required()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  app->add_option(
      "--mesh", flags->mesh,
      "What is already chosen, as pipeline=2,sharding=zero-1: pipeline, shard, context, tensor, expert, "
      "sharding, schedule, micro-batch, recompute");
  app->add_option("--measured", flags->measured,
                  "Steps that were measured, to correct the prices: a line each, seconds and the mesh");
  app->add_option("--compute", flags->compute, "f32 (default) or bf16")
      ->check(CLI::IsMember({"f32", "bf16"}));
  app->add_option("--rank-tflops", flags->tflops,
                  "TFLOP/s of a rank's matrix products (default: measured here)")
      ->check(CLI::Range(1e-6, 1e6));
  app->add_option("--rank-memory", flags->memory_gb,
                  "GB that a rank has (default: of running ranks what is free)")
      ->check(CLI::Range(1e-3, 1e6));
  app->add_option(
         "--rank-cores", flags->cores,
         "The part of a core that a rank has where all compute at once, as 0.5 where two share one (default: "
         "of running ranks as measured, else 1)")
      ->check(CLI::Range(1e-3, 1.0));
  app->add_option("--overlap", flags->overlap,
                  "The part of computing behind which gathers and reductions can hide, 0 to 1 (default 0.8)")
      ->check(CLI::Range(0.0, 1.0));
  app->add_option("--keep", flags->keep, "How long the ranking is")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app->add_option("--json", flags->json, "Also write the ranking into this file");
  app->add_option("--svg", flags->svg, "Also draw the ranking into this file");
  app->callback([=] { selected([=] { return PlanMesh(*flags); }); });
}

}  // namespace cohort::tools
