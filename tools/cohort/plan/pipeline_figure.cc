#include "tools/cohort/plan/pipeline_figure.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/cohort/plan/svg.h"

namespace cohort::tools {
namespace {

using parallel::pipeline::ActionKind;
using parallel::pipeline::TimedAction;

// The parts of the figure, in pixels.
constexpr double kFigureWidth = 1200, kNames = 70, kNumbers = 130, kTitle = 70, kRow = 34, kAxis = 60;
// A box of this width has room for a number of one digit; of each further one, this more.
constexpr double kDigitRoom = 9, kMoreDigits = 6.5;

// By kind: F, I, W, B.
constexpr const char* kActionColours[] = {svg::kColours[5], svg::kColours[4], svg::kColours[2],
                                          svg::kColours[1]};

// 1, 2 or 5 times a power of ten, about ten of which make up the whole.
double TickStep(double whole) {
  const double power = std::pow(10, std::floor(std::log10(whole / 10)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (power * factor * 12 >= whole) return power * factor;
  }
  return power * 10;
}

// Paler for later stages of a rank, down to two fifths.
double OpacityOf(const std::vector<int>& stages, int stage) {
  if (stages.size() < 2) return 1;
  const auto chunk = std::find(stages.begin(), stages.end(), stage) - stages.begin();
  return 1 - 0.6 * static_cast<double>(chunk) / static_cast<double>(stages.size() - 1);
}

std::string Legend(const parallel::pipeline::Schedule& schedule, double top) {
  bool used[parallel::pipeline::kNumActionKinds] = {};
  bool chunks = false;
  for (const auto& list : schedule.actions) {
    for (const auto& action : list) used[static_cast<int>(action.kind)] = true;
  }
  for (int rank = 0; rank < schedule.ranks(); ++rank) chunks = chunks || schedule.StagesOf(rank).size() > 1;
  constexpr const char* kNamesOfKinds[] = {"forward", "input gradient", "weight gradient", "backward"};
  double x = kNames;
  std::string text;
  for (int kind = 0; kind < parallel::pipeline::kNumActionKinds; ++kind) {
    if (!used[kind]) continue;
    text += svg::Rectangle(x, top + 42, 14, 14, absl::StrCat("fill=\"", kActionColours[kind], "\""));
    text += svg::Text(x + 20, top + 54, "start", kNamesOfKinds[kind]);
    x += 140;
  }
  if (chunks) text += svg::Text(x, top + 54, "start", "paler: a later stage of the same rank");
  return text;
}

double HeightOf(const PipelinePanel& panel) { return kTitle + kRow * panel.schedule->ranks() + kAxis; }

std::string Panel(const PipelinePanel& panel, double begin, double whole) {
  const parallel::pipeline::Schedule& schedule = *panel.schedule;
  const parallel::pipeline::Simulation& simulation = *panel.simulation;
  const double right = kFigureWidth - kNumbers, first = begin + kTitle,
               bottom = first + kRow * schedule.ranks();
  const auto x_of = [&](double seconds) { return kNames + (right - kNames) * seconds / whole; };
  std::string figure = svg::Text(kNames, begin + 28, "start", panel.title, 15) + Legend(schedule, begin) +
                       svg::Text(right + 12, begin + 54, "start", "busy") +
                       svg::Text(right + 62, begin + 54, "start", "kept");
  const double step = TickStep(whole);
  for (int tick = 0; tick * step <= whole * (1 + 1e-9); ++tick) {
    const double x = x_of(tick * step);
    figure += svg::Line(x, first, x, bottom, "stroke=\"#ddd\"");
    figure += svg::Text(x, bottom + 18, "middle", tick == 0 ? "0" : svg::TimeText(tick * step));
  }
  for (int rank = 0; rank < schedule.ranks(); ++rank) {
    const double top = first + kRow * rank, middle = top + kRow / 2 + 4;
    const std::vector<int> stages = schedule.StagesOf(rank);
    figure += svg::Text(kNames - 10, middle, "end", absl::StrCat("rank ", rank));
    for (const TimedAction& timed : simulation.timeline[rank]) {
      const double x = x_of(timed.begin), width = x_of(timed.end) - x;
      figure += svg::Rectangle(
          x, top + 3, width, kRow - 6,
          absl::StrFormat("fill=\"%s\" fill-opacity=\"%.2f\" stroke=\"#fff\" stroke-width=\"%.2f\"",
                          kActionColours[static_cast<int>(timed.action.kind)],
                          OpacityOf(stages, timed.action.stage), std::min(1.0, width / 6)));
      const std::string number = absl::StrCat(timed.action.micro_batch);
      if (width < kDigitRoom + kMoreDigits * static_cast<double>(number.size() - 1)) continue;
      figure += svg::Text(x + width / 2, middle, "middle", number, 11);
    }
    figure += svg::Text(
        right + 12, middle, "start",
        absl::StrFormat("%.0f%%", 100 * simulation.busy[rank] / std::max(simulation.seconds, 1e-12)));
    figure +=
        svg::Text(right + 62, middle, "start", absl::StrFormat("%.3g", simulation.peak_activations[rank]));
  }
  figure += svg::Line(kNames, bottom, right, bottom, "stroke=\"#222\"");
  return figure +
         svg::Text((kNames + right) / 2, bottom + 42, "middle",
                   absl::StrFormat("%s, of which ranks are idle for %.1f%%",
                                   svg::TimeText(simulation.seconds), 100 * simulation.BubbleFraction()));
}

}  // namespace

std::string PipelineFigure(absl::Span<const PipelinePanel> panels) {
  double whole = 1e-12, height = 0;
  for (const PipelinePanel& panel : panels) {
    whole = std::max(whole, panel.simulation->seconds);
    height += HeightOf(panel);
  }
  std::string figure = svg::Begin(kFigureWidth, height);
  double top = 0;
  for (const PipelinePanel& panel : panels) {
    figure += Panel(panel, top, whole);
    top += HeightOf(panel);
  }
  return figure + svg::kEnd;
}

}  // namespace cohort::tools
