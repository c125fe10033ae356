// What `cohort top` shows of a job, as text: pure, for a screen of any size.
#pragma once

#include <string>
#include <vector>

#include "cohort/v1/cluster.pb.h"

namespace cohort::tools {

struct TopView {
  v1::DescribeResponse job;
  std::string coordinator;   // its address
  std::string mesh;          // in words; empty: unknown
  double away_seconds = -1;  // since it was heard last; negative: it is there
};

// "4 ranks: shard 4, zero-3", of an epoch's arrangement; empty where it is none of a training.
std::string MeshWords(const std::string& arrangement);

// At most `height` lines of at most `width` columns. Members of whom something is wrong come first, then by rank; those that
// find no room are counted.
std::vector<std::string> TopScreen(const TopView& view, int width, int height);
// One line for a log.
std::string TopLine(const TopView& view);
std::string EventLine(const v1::Event& event);
// One object, in one line.
std::string TopJson(const TopView& view);

}  // namespace cohort::tools
