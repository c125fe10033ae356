// cohort bench pipeline: a real model over as many stages as the schedules want, on all ranks; every schedule's step, its
// times and what it keeps, beside what the simulator and the memory model make of the measured times and bytes of its
// stages. The schedules take turns in one run; medians count.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "parallel/parallel_model.h"
#include "parallel/pipeline/memory.h"
#include "parallel/pipeline/schedules/schedules.h"
#include "runtime/file.h"
#include "tools/cohort/bench/bench.h"
#include "tools/cohort/bench/model.h"
#include "tools/cohort/bench/pipeline_timing.h"
#include "tools/cohort/bench/random_tokens.h"
#include "tools/cohort/plan/pipeline_figure.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

using parallel::pipeline::ActionKind;
using parallel::pipeline::PipelineCosts;
using parallel::pipeline::Schedule;
using parallel::pipeline::Simulation;
using parallel::pipeline::StageCosts;

// Narrower than the others': a rank has one core.
constexpr BenchShape kPipelineShape = {.dense = R"(  max_position_embeddings: 512
)",
                                       .moe = R"(  max_position_embeddings: 512
  num_experts: 8
  num_experts_per_tok: 2
  moe_intermediate_size: 704
)"};
constexpr const char* kNarrow[] = {"model.vocab_size=1024", "model.hidden_size=512",
                                   "model.num_attention_heads=8", "model.head_dim=64",
                                   "model.intermediate_size=1408"};
constexpr int kBlocksPerRank = 4;
constexpr int kWarmups = 2, kBlockTurns = 3;

struct PipelineBenchFlags {
  std::shared_ptr<BenchFlags> bench = std::make_shared<BenchFlags>();
  std::vector<std::string> schedules = {"gpipe", "1f1b", "interleaved", "zb-h1", "zb-v"};
  int stages_per_rank = 2, micro_batches = 8, turns = 9;
  int64_t sequences = 1, sequence = 128;
  int receives_ahead = parallel::pipeline::policy::kReceivesAhead;
  bool recompute = false, measured_costs = false;
  std::string svg;
};

struct PipelineRow {
  std::string name;
  std::unique_ptr<parallel::ParallelModel> model;
  parallel::pipeline::ExecutorTrace trace = {};
  std::vector<MeasuredStep> steps = {};
  // What comes out of them.
  PipelineCosts costs = {};
  Simulation measured = {};   // the step of median length
  Simulation simulated = {};  // from each stage's times
  Simulation by_action =
      {};  // from each action's: of one kind and stage they differ, and do so in every step
  // Medians over the steps: measured, and each step replayed with its own times.
  double seconds = 0, bubble = 0, replayed_seconds = 0, replayed_bubble = 0;

  const Schedule& schedule() const { return model->plan().schedule(); }
};

double MostKept(const Simulation& simulation) {
  return *std::max_element(simulation.peak_activations.begin(), simulation.peak_activations.end());
}

// As many stages a rank as the schedule takes: --stages-per-rank where it can choose.
int StagesPerRank(const std::string& name, int wanted) {
  const parallel::pipeline::ScheduleGenerator* row = parallel::pipeline::FindScheduleGenerator(name);
  if (row == nullptr) return wanted;
  if (row->max_chunks > 0) return std::clamp(wanted, row->min_chunks, row->max_chunks);
  return row->min_chunks > 1 ? std::max(wanted, row->min_chunks) : 1;
}

absl::StatusOr<PipelineRow> MakeRow(const PipelineBenchFlags& flags, const std::string& name,
                                    int stages_per_rank, const parallel::BlockCosts& block_costs,
                                    const runtime::ModelConfig& config, const parallel::Mesh& mesh,
                                    const std::shared_ptr<comm::Communicator>& world) {
  PipelineRow row{.name = name, .model = nullptr};
  COHORT_ASSIGN_OR_RETURN(
      row.model, parallel::ParallelModel::Create(
                     config, runtime::CpuDevice(),
                     {.compute = *ParseDataType(flags.bench->dtype),
                      .recompute = flags.recompute,
                      .global_batch = flags.micro_batches * flags.sequences,
                      .micro_batch = flags.sequences,
                      .schedule = name,
                      .stages_per_rank = stages_per_rank,
                      .block_costs = block_costs},
                     mesh, world, std::make_unique<RandomTokens>(flags.sequence, config.vocab_size)));
  row.model->Initialize(1);
  row.model->executor().SetReceivesAhead(flags.receives_ahead);
  return row;
}

absl::StatusOr<MeasuredStep> RunStep(PipelineRow& row, int64_t step, comm::Communicator& stages) {
  row.trace = {};
  row.model->TracePipeline(&row.trace);
  COHORT_RETURN_IF_ERROR(row.model->ComputeGradients(step).status());
  return GatherTraces(stages, row.schedule(), row.trace);
}

// What each block takes, from a pipeline whose stages have one each. Embedding and head are in the first and the last.
absl::StatusOr<parallel::BlockCosts> MeasureBlocks(const PipelineBenchFlags& flags,
                                                   const runtime::ModelConfig& config,
                                                   const parallel::Mesh& mesh,
                                                   const std::shared_ptr<comm::Communicator>& world,
                                                   comm::Communicator& stages) {
  const auto blocks = static_cast<int>(config.num_hidden_layers);
  if (blocks % stages.size() != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--measured-costs runs stages of one block each: ", blocks,
        " blocks (model.num_hidden_layers) cannot be dealt evenly to ", stages.size(), " ranks"));
  }
  COHORT_ASSIGN_OR_RETURN(PipelineRow row,
                          MakeRow(flags, "gpipe", blocks / stages.size(), {}, config, mesh, world));
  for (int turn = -kWarmups; turn < kBlockTurns; ++turn) {
    COHORT_ASSIGN_OR_RETURN(MeasuredStep step, RunStep(row, turn + kWarmups, stages));
    if (turn >= 0) row.steps.push_back(std::move(step));
  }
  parallel::BlockCosts costs;
  for (const StageCosts& block : CostsOf(row.schedule(), row.steps)) {
    costs.blocks.push_back(block.forward + block.input + block.weight);
  }
  return costs;
}

absl::Status Evaluate(PipelineRow& row) {
  const Schedule& schedule = row.schedule();
  row.costs.stages = CostsOf(schedule, row.steps);
  COHORT_ASSIGN_OR_RETURN(row.simulated, SimulateSchedule(schedule, row.costs));
  std::vector<double> seconds, bubbles, replayed_seconds, replayed_bubbles;
  std::vector<std::vector<std::vector<double>>> of_actions;  // by rank and action: its times
  for (const MeasuredStep& step : row.steps) {
    const Simulation measured = AsSimulation(schedule, step);
    seconds.push_back(measured.seconds);
    bubbles.push_back(measured.BubbleFraction());
    PipelineCosts own = row.costs;
    of_actions.resize(measured.timeline.size());
    for (size_t rank = 0; rank < measured.timeline.size(); ++rank) {
      const auto& line = measured.timeline[rank];
      auto& times = own.actions.emplace_back();
      of_actions[rank].resize(line.size());
      for (size_t i = 0; i < line.size(); ++i) {
        times.push_back(line[i].end - line[i].begin);
        of_actions[rank][i].push_back(times.back());
      }
    }
    COHORT_ASSIGN_OR_RETURN(const Simulation replayed, SimulateSchedule(schedule, own));
    replayed_seconds.push_back(replayed.seconds);
    replayed_bubbles.push_back(replayed.BubbleFraction());
  }
  PipelineCosts each = row.costs;
  for (const auto& line : of_actions) {
    auto& times = each.actions.emplace_back();
    for (const std::vector<double>& of_action : line) times.push_back(Median(of_action));
  }
  COHORT_ASSIGN_OR_RETURN(row.by_action, SimulateSchedule(schedule, each));
  row.seconds = Median(seconds);
  row.bubble = Median(bubbles);
  row.replayed_seconds = Median(replayed_seconds);
  row.replayed_bubble = Median(replayed_bubbles);
  const auto middle = std::find(seconds.begin(), seconds.end(), row.seconds) - seconds.begin();
  row.measured = AsSimulation(schedule, row.steps[static_cast<size_t>(middle)]);
  return absl::OkStatus();
}

std::string Ratio(double measured, double simulated) {
  return simulated > 0 ? absl::StrFormat("%.3f", measured / simulated) : "-";
}

void PrintRows(const std::vector<PipelineRow>& rows) {
  std::printf("%-12s %6s | %8s %9s %6s %9s | %7s %9s %6s %9s %6s %9s | %8s %9s\n", "schedule", "stages",
              "step ms", "simulated", "ratio", "replayed", "bubble", "simulated", "ratio", "by action",
              "ratio", "replayed", "kept MB", "modelled");
  for (const PipelineRow& row : rows) {
    const double simulated = row.simulated.BubbleFraction(), by_action = row.by_action.BubbleFraction();
    std::printf(
        "%-12s %6d | %8.2f %9.2f %6.3f %9.2f | %6.2f%% %8.2f%% %6s %8.2f%% %6s %8.2f%% | %8.3f %9.3f\n",
        row.name.c_str(), row.schedule().stages(), row.seconds * 1e3, row.simulated.seconds * 1e3,
        row.seconds / row.simulated.seconds, row.replayed_seconds * 1e3, 100 * row.bubble, 100 * simulated,
        Ratio(row.bubble, simulated).c_str(), 100 * by_action, Ratio(row.bubble, by_action).c_str(),
        100 * row.replayed_bubble, MostKept(row.measured) / 1e6, MostKept(row.simulated) / 1e6);
  }
  std::printf(
      "bubble: the share of all ranks' time in which they do not compute; simulated: from each stage's "
      "times, the same for all\nmicro-batches; by action: from the median of each action over the steps; "
      "replayed: each step from what its own actions took,\nso that what is left are messages and the "
      "executor\n");
  for (const PipelineRow& row : rows) {
    const std::vector<int>& first = row.model->plan().first_block();
    std::printf("%s, blocks of each stage:", row.name.c_str());
    for (size_t stage = 0; stage + 1 < first.size(); ++stage)
      std::printf(" %d", first[stage + 1] - first[stage]);
    std::printf("; ms:");
    for (const StageCosts& stage : row.costs.stages) {
      std::printf(" %.2f + %.2f", stage.forward * 1e3, stage.input * 1e3);
      if (stage.weight > 0) std::printf(" + %.2f", stage.weight * 1e3);
      std::printf(",");
    }
    std::printf(" forward + %s\n",
                row.costs.stages[0].weight > 0 ? "input gradient + weight gradient" : "backward");
  }
}

nlohmann::ordered_json JsonOf(const PipelineRow& row, const PipelineBenchFlags& flags) {
  nlohmann::ordered_json json = BenchRow("pipeline", row.model->decoder().config(), *flags.bench);
  json["schedule"] = row.name;
  json["ranks"] = row.schedule().ranks();
  json["stages"] = row.schedule().stages();
  json["micro_batches"] = row.schedule().micro_batches;
  json["tokens"] = flags.sequences * flags.sequence;
  json["receives_ahead"] = flags.receives_ahead;
  json["step_s"] = row.seconds;
  json["simulated_step_s"] = row.simulated.seconds;
  json["bubble"] = row.bubble;
  json["simulated_bubble"] = row.simulated.BubbleFraction();
  json["by_action_bubble"] = row.by_action.BubbleFraction();
  json["replayed_step_s"] = row.replayed_seconds;
  json["replayed_bubble"] = row.replayed_bubble;
  json["kept_bytes"] = MostKept(row.measured);
  json["modelled_bytes"] = MostKept(row.simulated);
  json["latency_s"] = row.costs.transfer.latency;
  json["seconds_per_byte"] = row.costs.transfer.seconds_per_byte;
  json["message_bytes"] = row.costs.transfer.bytes;
  for (const StageCosts& stage : row.costs.stages) {
    json["costs"].push_back({{"forward_s", stage.forward},
                             {"input_s", stage.input},
                             {"weight_s", stage.weight},
                             {"activation_bytes", stage.activations},
                             {"kept_for_weight_bytes", stage.kept_for_weight}});
  }
  return json;
}

absl::Status DrawRows(const std::vector<PipelineRow>& rows, const std::string& path) {
  std::vector<Simulation> drawn;
  std::vector<PipelinePanel> panels;
  drawn.reserve(2 * rows.size());
  for (const PipelineRow& row : rows) {
    for (const auto& [simulation, what] :
         {std::pair{&row.measured, "measured"}, std::pair{&row.simulated, "simulated"}}) {
      Simulation& in_megabytes = drawn.emplace_back(*simulation);
      for (double& kept : in_megabytes.peak_activations) kept /= 1e6;
      panels.push_back(
          {absl::StrFormat("%s, %s (kept: MB)", row.name, what), &row.schedule(), &in_megabytes});
    }
  }
  return runtime::WriteFileDurably(path, PipelineFigure(panels));
}

absl::Status BenchPipeline(PipelineBenchFlags flags) {
  COHORT_ASSIGN_OR_RETURN(const auto world, JoinWorld(absl::Minutes(5)));
  const int ranks = world->size();
  std::vector<std::string> shape(std::begin(kNarrow), std::end(kNarrow));
  shape.push_back(absl::StrCat("model.num_hidden_layers=", kBlocksPerRank * ranks));
  flags.bench->overrides.insert(flags.bench->overrides.begin(), shape.begin(), shape.end());
  COHORT_ASSIGN_OR_RETURN(runtime::ModelConfig config, BenchModel(*flags.bench, kPipelineShape));
  config.tie_word_embeddings = false;  // the embedding and the head are on two ranks
  if (flags.sequence > config.max_position_embeddings) {
    return absl::InvalidArgumentError(absl::StrCat("--sequence ", flags.sequence,
                                                   " is longer than model.max_position_embeddings ",
                                                   config.max_position_embeddings));
  }
  SetBenchThreads(*flags.bench);
  COHORT_ASSIGN_OR_RETURN(const parallel::Mesh mesh, parallel::MakeMesh({.pipeline = ranks}, *world));
  // In the pipeline's numbering.
  COHORT_ASSIGN_OR_RETURN(const std::unique_ptr<comm::Communicator> stages,
                          world->Split(0, mesh.Coordinate(parallel::Axis::kPipeline, world->rank())));
  parallel::BlockCosts block_costs;
  if (flags.measured_costs) {
    COHORT_ASSIGN_OR_RETURN(block_costs, MeasureBlocks(flags, config, mesh, world, *stages));
  }
  std::vector<PipelineRow> rows;
  for (const std::string& name : flags.schedules) {
    COHORT_ASSIGN_OR_RETURN(PipelineRow row, MakeRow(flags, name, StagesPerRank(name, flags.stages_per_rank),
                                                     block_costs, config, mesh, world));
    rows.push_back(std::move(row));
  }
  const size_t message = static_cast<size_t>(flags.sequences * flags.sequence * config.hidden_size) *
                         SizeOf(*ParseDataType(flags.bench->dtype));
  COHORT_ASSIGN_OR_RETURN(const auto transfer, MeasureTransfers(*stages, message));
  for (int turn = -kWarmups; turn < flags.turns; ++turn) {
    for (PipelineRow& row : rows) {
      COHORT_ASSIGN_OR_RETURN(MeasuredStep step, RunStep(row, turn + kWarmups, *stages));
      if (turn >= 0) row.steps.push_back(std::move(step));
    }
  }
  if (stages->rank() != 0) return absl::OkStatus();
  std::vector<nlohmann::ordered_json> json;
  for (PipelineRow& row : rows) {
    row.costs.transfer = transfer;
    COHORT_RETURN_IF_ERROR(Evaluate(row));
    json.push_back(JsonOf(row, flags));
  }
  std::printf(
      "%s, %.0f million parameters in %d blocks, %d rank(s) of %d thread(s) on %d host(s), %d micro-batches "
      "of "
      "%d tokens in %s\na message of %.0f KiB takes %.3f ms, of which %.3f ms any message\n",
      config.model_type.c_str(), static_cast<double>(config.NumParameters()) / 1e6,
      static_cast<int>(config.num_hidden_layers), ranks, runtime::CpuThreads(), world->topology().num_hosts(),
      flags.micro_batches, static_cast<int>(flags.sequences * flags.sequence), flags.bench->dtype.c_str(),
      static_cast<double>(message) / 1024,
      (transfer.latency + transfer.bytes * transfer.seconds_per_byte) * 1e3, transfer.latency * 1e3);
  PrintRows(rows);
  COHORT_RETURN_IF_ERROR(WriteRows(json, flags.bench->json));
  return flags.svg.empty() ? absl::OkStatus() : DrawRows(rows, flags.svg);
}

}  // namespace

void AddBenchPipeline(CLI::App& bench, const Selected& selected) {
  CLI::App* app = bench.add_subcommand(
      "pipeline",
      "Pipeline schedules of a real model, a stage or more a rank, beside their simulation; under mpirun");
  const auto flags = std::make_shared<PipelineBenchFlags>();
  AddBenchFlags(*app, flags->bench, /*default_threads=*/1);
  const auto count = [&](const char* name, auto& value, const char* what) {
    app->add_option(name, value, what)->check(CLI::Range(1, 1 << 20))->capture_default_str();
  };
  app->add_option("--schedules", flags->schedules, "Schedules' names, or files with schedules of your own")
      ->delimiter(',')
      ->capture_default_str();
  count("--stages-per-rank", flags->stages_per_rank, "Where a schedule can have any number above one");
  count("--micro-batches", flags->micro_batches, "Micro-batches of a step");
  count("--sequences", flags->sequences, "Sequences of a micro-batch");
  count("--sequence", flags->sequence, "Tokens of a sequence");
  count("--turns", flags->turns, "Steps of each schedule");
  app->add_option("--receives-ahead", flags->receives_ahead,
                  "Receives that are posted before they are needed; 0: none")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app->add_flag("--recompute", flags->recompute, "Keep each block's input alone");
  app->add_flag("--measured-costs", flags->measured_costs,
                "Deal the blocks to the stages by what each takes here, not by their parameters");
  app->add_option("--svg", flags->svg,
                  "Draw the measured timelines beside the simulated ones into this file");
  app->callback([=] { selected([=] { return BenchPipeline(*flags); }); });
}

}  // namespace cohort::tools
