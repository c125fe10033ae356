// What `cohort plan mesh` says: in words, as JSON, and as a figure.
#pragma once

#include <string>

#include "parallel/planner/planner.h"

namespace cohort::tools {

// The arrangement in words, why it is the best, the ranking with what its seconds and bytes go to, and what was refused.
std::string MeshText(const parallel::planner::MeshRanking& ranking, const parallel::planner::Cluster& cluster,
                     const parallel::planner::Work& work);
std::string MeshJson(const parallel::planner::MeshRanking& ranking, const parallel::planner::Cluster& cluster,
                     const parallel::planner::Work& work);
// An SVG of its own: a bar for each ranked plan, stacked by what its seconds go to. `title` is plain text without < and &.
std::string MeshFigure(const std::string& title, const parallel::planner::MeshRanking& ranking);

}  // namespace cohort::tools
