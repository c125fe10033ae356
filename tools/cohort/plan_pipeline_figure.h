// The timeline of a pipeline schedule, drawn: a rank a row, an action a box.
#pragma once

#include <string>

#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/simulate.h"

namespace cohort::tools {

// An SVG of its own. Colours are kinds of actions, paler ones later stages of a rank; the numbers are
// micro-batches, where there is room. At the right: the share of the time in which a rank is busy, and the most that it
// keeps, in the unit of the simulation's costs. `title` is plain text without < and &.
std::string PipelineFigure(const std::string& title, const parallel::pipeline::Schedule& schedule,
                           const parallel::pipeline::Simulation& simulation);

}  // namespace cohort::tools
