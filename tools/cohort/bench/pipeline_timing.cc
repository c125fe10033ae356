#include "tools/cohort/bench/pipeline_timing.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include "comm/check.h"
#include "tools/cohort/bench/model.h"

namespace cohort::tools {
namespace {

using parallel::pipeline::Action;
using parallel::pipeline::ActionKind;
using parallel::pipeline::ExecutorTrace;
using parallel::pipeline::Schedule;
using parallel::pipeline::Simulation;
using parallel::pipeline::StageCosts;
using parallel::pipeline::TransferCosts;

constexpr int kRoundTrips = 21;

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

// Half a round trip between this rank and the next, as this one sees it; the next one takes part.
absl::StatusOr<double> OneWay(comm::Communicator& ranks, int first, size_t bytes) {
  std::vector<char> buffer(bytes);
  std::vector<double> seconds;
  const bool starts = ranks.rank() == first;
  const int peer = starts ? first + 1 : first;
  for (int i = 0; i < kRoundTrips; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    for (const bool sends : {starts, !starts}) {
      COHORT_RETURN_IF_ERROR((sends ? ranks.Send(buffer.data(), bytes, DataType::kU8, peer)
                                    : ranks.Recv(buffer.data(), bytes, DataType::kU8, peer))
                                 .Wait());
    }
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / 2);
  }
  return Median(std::move(seconds));
}

}  // namespace

absl::StatusOr<MeasuredStep> GatherTraces(comm::Communicator& ranks, const Schedule& schedule,
                                          const ExecutorTrace& mine) {
  std::vector<size_t> counts;
  size_t total = 0;
  for (const auto& list : schedule.actions) counts.push_back(3 * list.size()), total += counts.back();
  std::vector<double> sent, all(total);
  for (const auto& timed : mine.line) sent.push_back(timed.begin);
  for (const auto& timed : mine.line) sent.push_back(timed.end);
  for (const int64_t bytes : mine.kept) sent.push_back(static_cast<double>(bytes));
  COHORT_CHECK(sent.size() == counts[static_cast<size_t>(ranks.rank())], "a trace of another schedule");
  COHORT_RETURN_IF_ERROR(ranks.AllGather(sent.data(), all.data(), counts, DataType::kF64).Wait());
  MeasuredStep step;
  auto next = all.begin();
  const auto take = [&](size_t count) {
    std::vector<double> values(next, next + static_cast<std::ptrdiff_t>(count));
    next += static_cast<std::ptrdiff_t>(count);
    return values;
  };
  for (const auto& list : schedule.actions) {
    step.begin.push_back(take(list.size()));
    step.end.push_back(take(list.size()));
    step.kept.push_back(take(list.size()));
  }
  return step;
}

Simulation AsSimulation(const Schedule& schedule, const MeasuredStep& step) {
  Simulation measured;
  for (int rank = 0; rank < schedule.ranks(); ++rank) {
    auto& line = measured.timeline.emplace_back();
    double busy = 0, peak = 0;
    for (size_t i = 0; i < schedule.actions[rank].size(); ++i) {
      line.push_back({schedule.actions[rank][i], step.begin[rank][i], step.end[rank][i]});
      busy += line.back().end - line.back().begin;
      peak = std::max(peak, step.kept[rank][i]);
      measured.seconds = std::max(measured.seconds, line.back().end);
    }
    measured.busy.push_back(busy);
    measured.peak_activations.push_back(peak);
  }
  return measured;
}

std::vector<StageCosts> CostsOf(const Schedule& schedule, const std::vector<MeasuredStep>& steps) {
  // By stage and kind: what each action takes, and by how much more is kept after it.
  std::map<std::pair<int, ActionKind>, std::vector<double>> seconds, kept;
  for (int rank = 0; rank < schedule.ranks(); ++rank) {
    for (size_t i = 0; i < schedule.actions[rank].size(); ++i) {
      const Action& action = schedule.actions[rank][i];
      std::vector<double> took, more;
      for (const MeasuredStep& step : steps) {
        took.push_back(step.end[rank][i] - step.begin[rank][i]);
        more.push_back(step.kept[rank][i] - (i == 0 ? 0 : step.kept[rank][i - 1]));
      }
      seconds[{action.stage, action.kind}].push_back(Median(std::move(took)));
      kept[{action.stage, action.kind}].push_back(Median(std::move(more)));
    }
  }
  std::vector<StageCosts> costs;
  for (int stage = 0; stage < schedule.stages(); ++stage) {
    const auto time = [&](ActionKind kind) { return Mean(seconds[{stage, kind}]); };
    costs.push_back({.forward = time(ActionKind::kForward),
                     .input = time(ActionKind::kBackwardInput) + time(ActionKind::kBackward),
                     .weight = time(ActionKind::kBackwardWeight),
                     .activations = Median(kept[{stage, ActionKind::kForward}])});
    const std::vector<double>& weights = kept[{stage, ActionKind::kBackwardWeight}];
    costs.back().kept_for_weight = weights.empty() ? 0 : std::max(0.0, -Median(weights));
  }
  return costs;
}

absl::StatusOr<TransferCosts> MeasureTransfers(comm::Communicator& ranks, size_t bytes) {
  double small = 0, large = 0;
  for (int first = 0; first + 1 < ranks.size(); ++first) {
    if (ranks.rank() == first || ranks.rank() == first + 1) {
      COHORT_ASSIGN_OR_RETURN(const double least, OneWay(ranks, first, 1));
      COHORT_ASSIGN_OR_RETURN(const double whole, OneWay(ranks, first, bytes));
      small = std::max(small, least), large = std::max(large, whole);
    }
    COHORT_RETURN_IF_ERROR(ranks.Barrier().Wait());
  }
  double times[] = {small, large};
  COHORT_RETURN_IF_ERROR(ranks.AllReduce(times, times, 2, DataType::kF64, comm::ReduceOp::kMax).Wait());
  TransferCosts costs;
  costs.latency = times[0];
  costs.bytes = static_cast<double>(bytes);
  costs.seconds_per_byte = bytes == 0 ? 0 : std::max(0.0, times[1] - times[0]) / costs.bytes;
  return costs;
}

}  // namespace cohort::tools
