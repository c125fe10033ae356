#include "runtime/elastic/detect/straggler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "runtime/elastic/detect/policy.h"

namespace cohort::runtime::elastic {
namespace {

using Change = StragglerDetector::Change;

// Members whose times scatter as on a shared machine: lognormal, and now and then one is interrupted.
struct Machine {
  int members = 8;
  double scatter = 0.1;
  double spikes = 0.02;
  std::mt19937_64 draw{1};

  double Time(double mean) {
    double time = mean * std::exp(scatter * std::normal_distribution<double>()(draw));
    if (std::uniform_real_distribution<double>()(draw) < spikes) {
      time *= std::uniform_real_distribution<double>(2, 10)(draw);
    }
    return time;
  }
};

using Mean = std::function<double(int member, int64_t step)>;
using Share = std::function<WorkShare(int member)>;
WorkShare Same(int) { return {}; }

std::vector<Change> Train(StragglerDetector& detector, Machine& machine, int64_t first, int64_t steps,
                          const Mean& mean, const Share& share = Same) {
  std::vector<Change> all;
  for (int64_t step = first; step < first + steps; ++step) {
    for (int member = 0; member < machine.members; ++member) {
      detector.Add(member, share(member), step, machine.Time(mean(member, step)));
    }
    for (const Change& change : detector.Judge()) all.push_back(change);
  }
  return all;
}

double Even(int, int64_t) { return 0.3; }

// The step at which `slow` was named, counted from the first slow one; 0: it was not. Anybody else fails.
int64_t StepsUntilNamed(int members, double scatter, uint64_t seed, int slow, double factor) {
  Machine machine{.members = members, .scatter = scatter, .draw = std::mt19937_64(seed)};
  StragglerDetector detector;
  EXPECT_TRUE(Train(detector, machine, 1, 60, Even).empty()) << "seed " << seed;
  const std::vector<Change> changes = Train(
      detector, machine, 61, 30, [&](int member, int64_t) { return member == slow ? 0.3 * factor : 0.3; });
  if (changes.empty()) return 0;
  EXPECT_EQ(changes[0].straggler.member, slow) << "seed " << seed;
  EXPECT_EQ(changes.size(), 1u) << "seed " << seed;
  return changes[0].straggler.step - 60;
}

TEST(StragglerTest, ARankAtHalfItsSpeedIsNamedWithinTenSteps) {
  for (const int members : {2, 4, 8, 64}) {
    for (const double scatter : {0.0, 0.05, 0.1}) {
      for (uint64_t seed = 1; seed <= 100; ++seed) {
        const int64_t steps = StepsUntilNamed(members, scatter, seed, static_cast<int>(seed) % members, 2);
        EXPECT_GE(steps, 4) << members << " members, scatter " << scatter << ", seed " << seed;
        EXPECT_LE(steps, 10) << members << " members, scatter " << scatter << ", seed " << seed;
      }
    }
  }
}

TEST(StragglerTest, AlsoWhereTimesScatterByAFifth) {
  int late = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const int64_t steps = StepsUntilNamed(8, 0.2, seed, static_cast<int>(seed) % 8, 2);
    EXPECT_GT(steps, 0) << "seed " << seed;
    late += steps > 10;
  }
  EXPECT_LE(late, 2);
}

TEST(StragglerTest, NoFalseAlarmInTenThousandSteps) {
  for (const double scatter : {0.0, 0.05, 0.1, 0.2, 0.3}) {
    for (const int members : {2, 8}) {
      Machine machine{.members = members, .scatter = scatter, .draw = std::mt19937_64(7)};
      StragglerDetector detector;
      for (const Change& change : Train(detector, machine, 1, 10'000, Even)) {
        ADD_FAILURE() << members << " members, scatter " << scatter << ": " << change.straggler.member
                      << " at " << change.straggler.step;
      }
    }
  }
}

// Ten steps of three milliseconds are no time in which anybody can be called slow; a hundred are.
TEST(StragglerTest, ShortStepsTakeAQuarterOfASecond) {
  Machine machine{.members = 4};
  StragglerDetector detector;
  const auto mean = [](int member, int64_t step) {
    return member == 1 && (step > 500 || (step % 100 > 40 && step % 100 < 55)) ? 0.006 : 0.003;
  };
  const std::vector<Change> changes = Train(detector, machine, 1, 700, mean);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].straggler.member, 1);
  EXPECT_GE(changes[0].straggler.step, 520);
  EXPECT_LE(changes[0].straggler.step, 560);
}

TEST(StragglerTest, SomeoneALittleSlowerIsNobody) {
  Machine machine;
  StragglerDetector detector;
  EXPECT_TRUE(Train(detector, machine, 1, 2000, [](int m, int64_t) { return m == 2 ? 0.36 : 0.3; }).empty());
}

TEST(StragglerTest, TheVerdictSaysHowSlowAndEndsWithTheSlowness) {
  Machine machine;
  StragglerDetector detector;
  const std::vector<Change> changes = Train(detector, machine, 1, 400, [](int member, int64_t step) {
    return member == 5 && step > 100 && step <= 200 ? 0.9 : 0.3;
  });
  ASSERT_EQ(changes.size(), 2u);
  EXPECT_EQ(changes[0].straggler.member, 5);
  EXPECT_FALSE(changes[0].ended);
  EXPECT_GT(changes[0].straggler.factor, 1.4);
  EXPECT_TRUE(changes[1].ended);
  EXPECT_TRUE(detector.Stragglers().empty());
}

TEST(StragglerTest, WhileItIsSlowItIsNamedOnce) {
  Machine machine;
  StragglerDetector detector;
  EXPECT_EQ(Train(detector, machine, 1, 5000, [](int m, int64_t) { return m == 1 ? 0.9 : 0.3; }).size(), 1u);
  ASSERT_EQ(detector.Stragglers().count(1), 1u);
  EXPECT_NEAR(detector.Stragglers()[1].factor, 3, 0.4);
  EXPECT_THAT(DebugString(detector.Stragglers()[1]), ::testing::HasSubstr("times as long as the others"));
  // Between the two thresholds it stays what it is.
  EXPECT_TRUE(
      Train(detector, machine, 5001, 2000, [](int m, int64_t) { return m == 1 ? 0.39 : 0.3; }).empty());
  detector.Forget(1);
  EXPECT_TRUE(detector.Stragglers().empty());
}

// A pipeline's stages: unequal work, some members each.
TEST(StragglerTest, StagesAreComparedWithinThemselves) {
  Machine machine;
  StragglerDetector detector;
  const Share share = [](int member) { return WorkShare{.stage = member / 4}; };
  const Mean mean = [](int member, int64_t step) {
    return (member < 4 ? 0.2 : 0.6) * (member == 1 && step > 1000 ? 2 : 1);
  };
  EXPECT_TRUE(Train(detector, machine, 1, 1000, mean, share).empty());
  const std::vector<Change> changes = Train(detector, machine, 1001, 10, mean, share);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].straggler.member, 1);
}

TEST(StragglerTest, AStageOfOneIsComparedByWeightsFromTheBeginning) {
  Machine machine{.members = 4};
  StragglerDetector detector;
  const Share share = [](int member) { return WorkShare{.stage = member, .weight = 1.0 + member}; };
  const std::vector<Change> changes = Train(
      detector, machine, 1, 12, [](int m, int64_t) { return 0.1 * (1 + m) * (m == 2 ? 2 : 1); }, share);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].straggler.member, 2);
  EXPECT_FALSE(changes[0].straggler.past);
}

TEST(StragglerTest, AStageOfOneWithoutWeightsIsComparedWithItsPast) {
  Machine machine{.members = 4};
  StragglerDetector detector;
  const Share share = [](int member) { return WorkShare{.stage = member}; };
  const Mean mean = [](int m, int64_t step) {
    // From 500 on steps are longer for all.
    return 0.1 * (1 + m) * (step > 500 ? 3 : 1) * (m == 3 && step > 1000 ? 2 : 1);
  };
  EXPECT_TRUE(Train(detector, machine, 1, 1000, mean, share).empty());
  const std::vector<Change> changes = Train(detector, machine, 1001, 10, mean, share);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].straggler.member, 3);
  EXPECT_TRUE(changes[0].straggler.past);
  // Nor does it become used to it.
  EXPECT_TRUE(Train(detector, machine, 1011, 500, mean, share).empty());
}

// Reports come with leases: several steps at once, of some members sooner than of others.
TEST(StragglerTest, ReportsComeInBatchesAndOutOfStep) {
  Machine machine{.members = 4};
  StragglerDetector detector;
  std::vector<Change> all;
  std::vector<int64_t> told(4, 0);
  for (int64_t step = 1; step <= 200; ++step) {
    for (int member = 0; member < 4; ++member) {
      if ((step + member) % 5 != 0) continue;
      while (told[static_cast<size_t>(member)] < step) {
        const int64_t next = ++told[static_cast<size_t>(member)];
        detector.Add(member, {}, next, machine.Time(member == 0 && next > 100 ? 0.6 : 0.3));
        detector.Add(member, {}, next, 100);  // repeated
      }
    }
    for (const Change& change : detector.Judge()) all.push_back(change);
  }
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].straggler.member, 0);
  EXPECT_LE(all[0].straggler.step, 110);
}

TEST(StragglerTest, SomebodyWhoTellsNothingMoreHoldsNobodyUp) {
  Machine machine{.members = 4};
  StragglerDetector detector;
  detector.Add(9, {}, 1, 0.3);
  const auto changes =
      Train(detector, machine, 1, 60, [](int m, int64_t step) { return m == 3 && step > 20 ? 0.6 : 0.3; });
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].straggler.member, 3);
}

TEST(StragglerTest, NonsenseIsIgnored) {
  StragglerDetector detector;
  for (const double seconds : {0.0, -1.0, std::nan(""), 1e308 * 10}) detector.Add(0, {}, 1, seconds);
  EXPECT_TRUE(detector.Judge().empty());
  detector.Add(0, {}, 1, 0.1);
  EXPECT_TRUE(detector.Judge().empty());
  detector.Reset();
  EXPECT_TRUE(detector.Judge().empty());
}

}  // namespace
}  // namespace cohort::runtime::elastic
