// What the planner chooses: a mesh, and how a model is trained on it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "parallel/mesh.h"
#include "parallel/sharding/sharding.h"

namespace cohort::parallel::planner {

// What is trained.
struct Work {
  int64_t sequence_length = 0;  // tokens
  int64_t global_batch = 0;     // sequences of a step, over all ranks
  int compute_bytes = 4;        // of an element of the compute type: 4 (f32) or 2 (bf16); state is f32
};

struct MeshPlan {
  MeshShape shape;
  std::string sharding_name = "ddp";  // as ParseSharding takes it
  Sharding sharding;
  std::string schedule = "1f1b";  // of a pipeline (parallel/pipeline/schedules)
  int chunks = 1;                 // stages a rank
  int64_t micro_batch = 1;        // sequences that a rank computes at once
  bool recompute = false;

  // As ParseChoices reads it: "pipeline=2 tensor=2 sharding=zero-1 schedule=1f1b micro-batch=1 recompute=no".
  std::string DebugString() const;
};

// A part of a plan: what is said is fixed.
struct Choices {
  std::optional<int> pipeline, shard, context, tensor, expert;
  std::optional<std::string> sharding;  // as ParseSharding takes it; proved
  std::optional<std::string> schedule;
  std::optional<int64_t> micro_batch;
  std::optional<bool> recompute;

  bool Allow(const MeshShape& shape) const;
  // The plan with everything else at one, nothing split, and `micro_batch` where none is said.
  MeshPlan Complete(int64_t micro_batch) const;
};

// key=value, between commas or blanks: pipeline, shard, context, tensor, expert (ranks), sharding, schedule,
// micro-batch, recompute (yes or no). INVALID_ARGUMENT names what is wrong and what is known.
absl::StatusOr<Choices> ParseChoices(absl::string_view text);

// Schedules that the planner tries: rows of parallel/pipeline/schedules.
std::vector<std::string> PlannedSchedules();
// Stages a rank in the schedule of that name, as the planner uses it; 0: it does not.
int ChunksOf(absl::string_view schedule);

}  // namespace cohort::parallel::planner
