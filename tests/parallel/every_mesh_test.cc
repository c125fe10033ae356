// Every mesh computes the gradients of one rank: all ways in which pipeline, replicate, shard, context,
// tensor and expert axes divide 2 to 8 ranks, with the options that go with them. On up to four ranks every
// shape is tried, on more those that bring all pairs of choices together, each in double precision, which
// proves the mathematics, and in f32, which is what trains. COHORT_EVERY_MESH=N, which
// tools/every_mesh sets, tries every shape on every number of ranks, N times with other options each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <iterator>
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

constexpr size_t kSettingsOfATest = 12;

// Some settings of one model on so many ranks.
struct MeshCase {
  std::string name, model;
  int ranks;
  std::vector<MeshSetting> settings;
};

void PrintTo(const MeshCase& c, std::ostream* out) { *out << c.settings.size() << " settings"; }

void AddCases(const std::string& name, const std::string& model, int ranks,
              const std::vector<MeshSetting>& settings, std::vector<MeshCase>& cases) {
  for (size_t begin = 0; begin < settings.size(); begin += kSettingsOfATest) {
    const size_t end = std::min(settings.size(), begin + kSettingsOfATest);
    cases.push_back({absl::StrCat(name, settings.size() > kSettingsOfATest
                                            ? absl::StrCat("_part_", begin / kSettingsOfATest + 1)
                                            : ""),
                     model,
                     ranks,
                     {settings.begin() + static_cast<std::ptrdiff_t>(begin),
                      settings.begin() + static_cast<std::ptrdiff_t>(end)}});
  }
}

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

// Every shape for dense and sparse blocks on few ranks, the covering set on eight, and a few of it in
// between.
std::vector<MeshCase> ShortCases() {
  constexpr size_t kBetween = 4;  // settings of a model on five, six and seven ranks
  std::vector<MeshCase> cases;
  for (int ranks = 2; ranks <= 8; ++ranks) {
    const std::vector<MeshSetting> covering = CoveringSettings(ranks);
    for (const std::string& model : HarnessModels()) {
      const bool first_two = model == "dense" || model == "softmax";
      if (ranks < 8 && !first_two) continue;
      std::vector<MeshSetting> settings;
      if (ranks <= 4) {
        settings = Turn(model, ranks, 0);
      } else {
        std::copy_if(covering.begin(), covering.end(), std::back_inserter(settings),
                     [&](const MeshSetting& setting) { return setting.model == model; });
        if (ranks < 8) settings.resize(std::min(settings.size(), kBetween));
      }
      AddCases(absl::StrCat(model, "_on_", ranks), model, ranks, settings, cases);
    }
  }
  return cases;
}

std::vector<MeshCase> LongCases(int turns) {
  std::vector<MeshCase> cases;
  for (int turn = 0; turn < turns; ++turn) {
    for (int ranks = 2; ranks <= 8; ++ranks) {
      for (const std::string& model : HarnessModels()) {
        AddCases(absl::StrCat(model, "_on_", ranks, "_turn_", turn + 1), model, ranks,
                 Turn(model, ranks, turn), cases);
      }
    }
  }
  return cases;
}

std::vector<MeshCase> Cases() { return TurnsAskedFor() > 0 ? LongCases(TurnsAskedFor()) : ShortCases(); }

class EveryMesh : public ::testing::TestWithParam<MeshCase> {};

TEST_P(EveryMesh, ComputesTheGradientsOfOneRank) {
  const MeshCase& c = GetParam();
  const MeshCount count = ExpectTheMathematicsOfOneRank(c.model, c.ranks, c.settings);
  std::cout << count.computed << " settings computed, " << count.refused << " refused\n";
}

INSTANTIATE_TEST_SUITE_P(Models, EveryMesh, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

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
