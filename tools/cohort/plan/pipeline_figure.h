// Timelines of pipeline schedules, drawn: a rank a row, an action a box.
#pragma once

#include <string>

#include "absl/types/span.h"
#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/simulate.h"

namespace cohort::tools {

struct PipelinePanel {
  std::string title;  // plain text without < and &
  const parallel::pipeline::Schedule* schedule;
  const parallel::pipeline::Simulation* simulation;  // simulated, or measured
};

// An SVG of its own, with one panel below the other on one scale of time. Colours are kinds of actions, paler ones
// later stages of a rank; the numbers are micro-batches, where there is room. At the right: the share of the time in
// which a rank is busy, and the most that it keeps, in the unit of the simulation's costs.
std::string PipelineFigure(absl::Span<const PipelinePanel> panels);

}  // namespace cohort::tools
