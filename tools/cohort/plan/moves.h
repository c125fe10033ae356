// What the plans of changes have in common: meshes as the command line has them, and what moves in words.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/arrangement.h"
#include "parallel/planner/mesh_plan.h"
#include "parallel/reshard/move_training.h"
#include "runtime/model/model_config.h"

namespace cohort::tools {

// What a mesh is called on the command line.
struct AskedMesh {
  int ranks = 1;
  parallel::Arrangement arrangement;
  parallel::planner::MeshPlan plan;  // the same
};

// "ranks=8 tensor=2 sharding=zero-1": as `plan mesh` takes it, and how many ranks; without that, as few as it needs. Errors
// begin with the flag.
absl::StatusOr<AskedMesh> ParseMesh(const std::string& flag, const std::string& text);

// A folder with a config.json, or the file itself.
absl::StatusOr<runtime::ModelConfig> ReadModel(const std::string& path);

// Bytes and messages between hosts and between ranks, the most first, at most `shown` of each. processes[r], hosts[r]: what
// rank r of the move is called, and where it is.
std::string MovesText(const parallel::Move& move, const std::vector<int>& processes,
                      const std::vector<int>& hosts, int shown);

}  // namespace cohort::tools
