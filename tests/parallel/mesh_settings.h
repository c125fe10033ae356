// Every way of spreading a small model that the harness of meshes knows, as values: which there are, which of
// them have to be refused and why, and small sets of them that still bring every pair of choices together.
#pragma once

#include <string>
#include <vector>

#include "parallel/parallel_model.h"

namespace cohort::parallel {

// One model, one mesh, and a row of each table of options.
struct MeshSetting {
  std::string model = "dense";  // a row of HarnessModels
  MeshShape shape;
  std::string sharding = "ddp";
  size_t context = 0;   // of ContextChoices; without effect where no context group shares sequences
  size_t schedule = 0;  // of ScheduleChoices; without effect where there is one pipeline rank
  bool recompute = false;
  bool split = false;  // batches in halves; without effect where there is no tensor group

  std::string DebugString() const;
};

// Names of models, dense first.
std::vector<std::string> HarnessModels();
// Heads, vocabulary and experts are such that every axis of up to `ranks` can divide them; four blocks, or
// eight for more ranks than four.
runtime::ModelConfig HarnessConfig(const std::string& model, int ranks);
bool IsSparseModel(const std::string& model);

ParallelOptions OptionsOf(const MeshSetting& setting);

// All divisions of the ranks. Experts are divided in sparse models only.
std::vector<MeshShape> EveryShape(int ranks, bool experts);

// Words that the error must have which refuses the setting; none: it must be computed. Written down apart
// from the code that refuses.
std::vector<std::string> ExpectedRefusal(const MeshSetting& setting, const runtime::ModelConfig& config,
                                         int ranks);

// Each shape once, with options that differ from shape to shape and from turn to turn: in as many turns as a
// table has rows every shape meets every row of it.
std::vector<MeshSetting> Turn(const std::string& model, int ranks, int turn);
// Turns of some tables have so many rows.
int TurnsForEveryRow();

// A small part of `pool`, settings of so many ranks, in which every axis that divides something still meets
// every other one and every option and model of the pool.
std::vector<MeshSetting> Covering(const std::vector<MeshSetting>& pool, int ranks);

}  // namespace cohort::parallel
