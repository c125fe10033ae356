// Every mesh computes the gradients of one rank: all ways in which pipeline, replicate, shard, context, tensor and expert
// axes divide 2 to 8 ranks, with the options that go with them. On up to four ranks every shape is tried, on more those
// that bring all pairs of choices together. COHORT_EVERY_MESH=N, which tools/every_mesh sets, tries every shape on every
// number of ranks, N times with other options each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/parallel/mesh_harness.h"

namespace cohort::parallel {
namespace {

// Turns that were asked for; 0: the short test.
int TurnsAskedFor() {
  const char* text = std::getenv("COHORT_EVERY_MESH");
  int turns = 0;
  return text != nullptr && absl::SimpleAtoi(text, &turns) && turns > 0 ? turns : 0;
}

struct MeshCase {
  std::string model;
  int ranks;
  int turn;  // -1: a covering set
};

void PrintTo(const MeshCase& c, std::ostream* out) { *out << c.model << " on " << c.ranks; }

// The legal settings that cover all pairs, of all models together.
std::vector<MeshSetting> CoveringSettings(int ranks) {
  std::vector<MeshSetting> pool;
  for (const std::string& model : HarnessModels()) {
    const runtime::ModelConfig config = HarnessConfig(model, ranks);
    for (int turn = 0; turn < TurnsForEveryRow(); ++turn) {
      for (const MeshSetting& setting : Turn(model, ranks, turn)) {
        if (ExpectedRefusal(setting, config, ranks).empty()) pool.push_back(setting);
      }
    }
  }
  return Covering(pool, ranks);
}

std::vector<MeshCase> Cases() {
  std::vector<MeshCase> cases;
  const int turns = TurnsAskedFor();
  for (int ranks = 2; ranks <= 8; ++ranks) {
    const bool all = turns > 0 || ranks <= 4;
    for (const std::string& model : HarnessModels()) {
      const bool first_two = model == "dense" || model == "softmax";
      if (!all) {
        if (ranks == 8 || first_two) cases.push_back({model, ranks, -1});
        continue;
      }
      for (int turn = 0; turn < std::max(turns, 1); ++turn) {
        if (turns > 0 || first_two) cases.push_back({model, ranks, turn});
      }
    }
  }
  return cases;
}

class EveryMesh : public ::testing::TestWithParam<MeshCase> {};

TEST_P(EveryMesh, ComputesTheGradientsOfOneRank) {
  const MeshCase& c = GetParam();
  std::vector<MeshSetting> settings;
  if (c.turn >= 0) {
    settings = Turn(c.model, c.ranks, c.turn);
  } else {
    settings = CoveringSettings(c.ranks);
    std::erase_if(settings, [&](const MeshSetting& setting) { return setting.model != c.model; });
  }
  const MeshCount count = ExpectTheMathematicsOfOneRank(c.model, c.ranks, settings);
  std::cout << count.computed << " settings computed, " << count.refused << " refused\n";
  if (c.turn >= 0) {
    EXPECT_GT(count.computed, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EveryMesh, ::testing::ValuesIn(Cases()), [](const auto& info) {
  return absl::StrCat(info.param.model, "_on_", info.param.ranks,
                      info.param.turn > 0 ? absl::StrCat("_turn_", info.param.turn) : "");
});

TEST(EveryMeshSettings, TheCoveringSetIsSmallAndBringsEveryAxisAndOptionTogether) {
  const std::vector<MeshSetting> covering = CoveringSettings(8);
  EXPECT_LT(covering.size(), 60u);
  std::set<std::string> shardings;
  std::set<size_t> contexts, schedules;
  for (const MeshSetting& setting : covering) {
    shardings.insert(setting.sharding);
    if (setting.shape.context > 1) contexts.insert(setting.context);
    if (setting.shape.pipeline > 1) schedules.insert(setting.schedule);
  }
  EXPECT_EQ(shardings.size(), static_cast<size_t>(TurnsForEveryRow()));
  EXPECT_EQ(contexts.size(), 7u);
  EXPECT_EQ(schedules.size(), 9u);
}

}  // namespace
}  // namespace cohort::parallel
