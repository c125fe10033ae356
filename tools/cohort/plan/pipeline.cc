// cohort plan pipeline: pipeline schedules, ours or a user's, proved and simulated: time, bubble and activations.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "parallel/pipeline/balance.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/schedule_file.h"
#include "parallel/pipeline/schedules/schedules.h"
#include "parallel/pipeline/simulate.h"
#include "runtime/file.h"
#include "tools/cohort/plan/pipeline_figure.h"
#include "tools/cohort/plan/plan.h"

namespace cohort::tools {
namespace {

using parallel::pipeline::BalanceStages;
using parallel::pipeline::MakeSchedule;
using parallel::pipeline::PipelineCosts;
using parallel::pipeline::Schedule;
using parallel::pipeline::ScheduleGenerator;
using parallel::pipeline::ScheduleRequest;
using parallel::pipeline::Simulation;
using parallel::pipeline::StageCosts;
using parallel::pipeline::StageSplit;

constexpr char kEverySchedule[] = "all";

struct PipelineFlags {
  int ranks = 0, stages = 0, micro_batches = 8;  // 0: what the schedule needs
  std::string schedule = kEverySchedule, file, out, svg;
  std::vector<double> costs = {1, 1, 1};  // milliseconds
  double latency = 0, transfer = 0;       // milliseconds
  int blocks = 0;                         // 0: stages of equal cost
  double embedding = 0, head = 0;         // in blocks
  double limit = 0;                       // 0: none
};

struct PlannedPipeline {
  std::string name;
  Schedule schedule;
  Simulation simulation;
  StageSplit split;  // where blocks are given
};

// Costs of stages on so many ranks. Activations are in shares of a rank: what a micro-batch leaves on a rank of a
// balanced pipeline.
absl::StatusOr<PipelineCosts> CostsOf(const PipelineFlags& flags, int ranks, int stages, StageSplit* split) {
  PipelineCosts costs;
  costs.transfer = {flags.latency * 1e-3, 1, flags.transfer * 1e-3};
  const bool each = flags.costs.size() != 3;
  if (each && flags.costs.size() != size_t{3} * stages) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--costs has ", flags.costs.size(), " values; it takes 3, or 3 for each of the ", stages, " stages"));
  }
  if (flags.blocks > 0) {
    if (each) return absl::InvalidArgumentError("--blocks and --costs of each stage exclude each other");
    COHORT_ASSIGN_OR_RETURN(
        *split, BalanceStages(std::vector<double>(flags.blocks, 1.0), flags.embedding, flags.head, stages));
  }
  const double chunks = static_cast<double>(stages) / ranks;
  for (int stage = 0; stage < stages; ++stage) {
    const double* of = flags.costs.data() + (each ? size_t{3} * stage : 0);
    double time = each ? 1 : 1 / chunks, share = 1 / chunks;
    if (flags.blocks > 0) {
      time = split->cost[stage] * ranks / flags.blocks;
      share = static_cast<double>(split->first_block[stage + 1] - split->first_block[stage]) * ranks /
              flags.blocks;
    }
    time *= 1e-3;
    costs.stages.push_back({of[0] * time, of[1] * time, of[2] * time, share, share});
  }
  return costs;
}

absl::StatusOr<PlannedPipeline> PlanOf(const PipelineFlags& flags, const ScheduleGenerator& row) {
  ScheduleRequest request;
  const int least = row.min_chunks;
  request.ranks = flags.ranks > 0 ? flags.ranks : flags.stages / least;
  const int stages = flags.stages > 0 ? flags.stages : request.ranks * least;
  if (request.ranks < 1 || stages % request.ranks != 0) {
    return absl::InvalidArgumentError(
        request.ranks < 1
            ? absl::StrCat(row.name, " needs ", least, " stages or more, not ", stages)
            : absl::StrCat(stages, " stages cannot be dealt evenly to ", request.ranks, " ranks"));
  }
  if (flags.ranks == 0 && stages % least != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(row.name, " has ", least, " stages a rank; ", stages, " stages do not divide by that"));
  }
  request.chunks = stages / request.ranks;
  request.micro_batches = flags.micro_batches;
  if (flags.limit > 0) request.activation_limit = flags.limit;
  PlannedPipeline planned;
  planned.name = row.name;
  COHORT_ASSIGN_OR_RETURN(request.costs, CostsOf(flags, request.ranks, stages, &planned.split));
  COHORT_ASSIGN_OR_RETURN(planned.schedule, MakeSchedule(row.name, request));
  COHORT_ASSIGN_OR_RETURN(planned.simulation, SimulateSchedule(planned.schedule, request.costs));
  return planned;
}

absl::StatusOr<PlannedPipeline> PlanOfFile(const PipelineFlags& flags) {
  PlannedPipeline planned;
  planned.name = flags.file;
  COHORT_ASSIGN_OR_RETURN(const std::string text, runtime::ReadFile(flags.file));
  COHORT_ASSIGN_OR_RETURN(planned.schedule, parallel::pipeline::ParseSchedule(text, flags.file));
  const Schedule& schedule = planned.schedule;
  COHORT_ASSIGN_OR_RETURN(const PipelineCosts costs,
                          CostsOf(flags, schedule.ranks(), schedule.stages(), &planned.split));
  if (flags.limit > 0) {
    const absl::Status fits = CheckSchedule(schedule, {flags.limit, costs.stages});
    if (!fits.ok()) return absl::InvalidArgumentError(absl::StrCat(flags.file, ": ", fits.message()));
  }
  COHORT_ASSIGN_OR_RETURN(planned.simulation, SimulateSchedule(schedule, costs));
  return planned;
}

double MostActivations(const PlannedPipeline& row) {
  const std::vector<double>& peaks = row.simulation.peak_activations;
  return *std::max_element(peaks.begin(), peaks.end());
}

void PrintPipelines(const std::vector<PlannedPipeline>& rows) {
  std::printf("%-14s %6s %7s %13s %12s %8s %12s\n", "schedule", "ranks", "stages", "micro-batches", "ms",
              "bubble", "activations");
  for (const PlannedPipeline& row : rows) {
    std::printf("%-14s %6d %7d %13d %12.4g %7.1f%% %12.3g\n", row.name.c_str(), row.schedule.ranks(),
                row.schedule.stages(), row.schedule.micro_batches, row.simulation.seconds * 1e3,
                100 * row.simulation.BubbleFraction(), MostActivations(row));
  }
  std::printf("activations: the most that a rank keeps, in shares of a rank for one micro-batch\n");
}

void PrintSplit(const StageSplit& split) {
  std::printf("blocks of the stages:");
  for (size_t stage = 0; stage + 1 < split.first_block.size(); ++stage) {
    std::printf(" %d", split.first_block[stage + 1] - split.first_block[stage]);
  }
  std::printf("; costs in blocks, with embedding and head: %s\n", absl::StrJoin(split.cost, " ").c_str());
}

absl::Status PlanPipeline(const PipelineFlags& flags) {
  std::vector<PlannedPipeline> rows;
  std::vector<std::string> refused;
  if (!flags.file.empty()) {
    COHORT_ASSIGN_OR_RETURN(rows.emplace_back(), PlanOfFile(flags));
  } else if (flags.ranks == 0 && flags.stages == 0) {
    return absl::InvalidArgumentError("say --ranks, --stages or both, or --file");
  } else if (flags.schedule != kEverySchedule) {
    const ScheduleGenerator* row = parallel::pipeline::FindScheduleGenerator(flags.schedule);
    if (row == nullptr) return MakeSchedule(flags.schedule, {}).status();
    COHORT_ASSIGN_OR_RETURN(rows.emplace_back(), PlanOf(flags, *row));
  } else {
    for (const ScheduleGenerator& row : parallel::pipeline::ScheduleGenerators()) {
      absl::StatusOr<PlannedPipeline> planned = PlanOf(flags, row);
      if (planned.ok()) {
        rows.push_back(*std::move(planned));
      } else {
        refused.push_back(absl::StrCat("not ", row.name, ": ", planned.status().message()));
      }
    }
  }
  // Fastest first, and of equals (but for rounding) the one that keeps least.
  std::stable_sort(rows.begin(), rows.end(), [](const PlannedPipeline& a, const PlannedPipeline& b) {
    const auto key = [](const PlannedPipeline& row) {
      return std::pair(std::round(1e12 * row.simulation.seconds), MostActivations(row));
    };
    return key(a) < key(b);
  });
  if (rows.empty()) return absl::InvalidArgumentError(absl::StrJoin(refused, "\n"));
  PrintPipelines(rows);
  const PlannedPipeline& best = rows.front();
  if (!best.split.cost.empty()) PrintSplit(best.split);
  for (const std::string& line : refused) std::printf("%s\n", line.c_str());
  if (!flags.out.empty()) {
    COHORT_RETURN_IF_ERROR(
        runtime::WriteFileDurably(flags.out, parallel::pipeline::ScheduleText(best.schedule)));
  }
  if (flags.svg.empty()) return absl::OkStatus();
  const std::string title = absl::StrFormat(
      "%s: %d stages on %d ranks, %d micro-batches", flags.file.empty() ? best.name : "schedule",
      best.schedule.stages(), best.schedule.ranks(), best.schedule.micro_batches);
  const PipelinePanel panel = {title, &best.schedule, &best.simulation};
  return runtime::WriteFileDurably(flags.svg, PipelineFigure({&panel, 1}));
}

}  // namespace

void AddPlanPipeline(CLI::App& plan, const Selected& selected) {
  CLI::App* app = plan.add_subcommand(
      "pipeline",
      "Pipeline schedules, proved and simulated: time, bubble and activations, from costs of stages");
  const auto flags = std::make_shared<PipelineFlags>();
  const auto count = CLI::Range(1, 100'000);
  const auto cost = CLI::Range(0.0, 1e12);
  app->add_option("--stages", flags->stages,
                  "Stages of the pipeline (default: as few a rank as there can be)")
      ->check(count);
  app->add_option("--ranks", flags->ranks, "Ranks of the pipeline (default: from the stages)")->check(count);
  app->add_option("--micro-batches", flags->micro_batches, "Micro-batches of a step (default 8)")
      ->check(count);
  app->add_option("--schedule", flags->schedule,
                  "A schedule's name, or all (default): a table, fastest first");
  app->add_option(
         "--costs", flags->costs,
         "Milliseconds of forward, input gradient and weight gradient of one micro-batch: of a rank's stages "
         "together (3 values, default 1,1,1), or of each stage (3 for each)")
      ->delimiter(',')
      ->check(cost);
  app->add_option("--latency", flags->latency, "Milliseconds until a message arrives")->check(cost);
  app->add_option("--transfer", flags->transfer, "Milliseconds for which a message keeps its link busy")
      ->check(cost);
  app->add_option("--blocks", flags->blocks,
                  "Blocks of the model, dealt to stages so that the slowest is fast")
      ->check(count);
  app->add_option("--embedding", flags->embedding, "With --blocks: what the embedding costs, in blocks")
      ->check(cost);
  app->add_option("--head", flags->head, "With --blocks: what head and loss cost, in blocks")->check(cost);
  app->add_option("--limit", flags->limit,
                  "The most activations that a rank may keep, in shares of a rank for one micro-batch")
      ->check(cost);
  app->add_option("--file", flags->file, "A schedule of your own: a line a rank, as 0F0,0F1,0B0,0B1")
      ->excludes("--stages")
      ->excludes("--ranks")
      ->excludes("--micro-batches")
      ->excludes("--schedule");
  app->add_option("--out", flags->out, "Write the (fastest) schedule into this file, to be read with --file");
  app->add_option("--svg", flags->svg, "Draw the (fastest) schedule's timeline into this file");
  app->callback([=] { selected([=] { return PlanPipeline(*flags); }); });
}

}  // namespace cohort::tools
