#include "runtime/optim/schedule.h"

#include <cmath>

#include "gtest/gtest.h"

namespace cohort::runtime {
namespace {

Schedule Make(Decay decay) {
  return Schedule{.peak = 2.0, .total_steps = 110, .warmup_steps = 10, .min_ratio = 0.1, .decay = decay};
}

TEST(ScheduleTest, WarmUpIsLinearAndReachesThePeak) {
  for (const DecayRow& row : DecayTable()) {
    const Schedule schedule = Make(row.decay);
    EXPECT_DOUBLE_EQ(schedule.At(0), 0.2) << row.name;
    EXPECT_DOUBLE_EQ(schedule.At(4), 1.0) << row.name;
    EXPECT_DOUBLE_EQ(schedule.At(9), 2.0) << row.name;
    EXPECT_DOUBLE_EQ(schedule.At(10), 2.0) << row.name;
  }
}

TEST(ScheduleTest, EveryDecayEndsAtTheMinimumAndStaysThere) {
  for (Decay decay : {Decay::kCosine, Decay::kLinear, Decay::kWsd}) {
    EXPECT_NEAR(Make(decay).At(110), 0.2, 1e-12);
    EXPECT_NEAR(Make(decay).At(1000), 0.2, 1e-12);
  }
  EXPECT_DOUBLE_EQ(Make(Decay::kConstant).At(1000), 2.0);
}

TEST(ScheduleTest, MiddlesAreThoseOfTheFormulas) {
  EXPECT_NEAR(Make(Decay::kCosine).At(60), 2.0 * (0.1 + 0.9 * 0.5), 1e-12);
  EXPECT_NEAR(Make(Decay::kCosine).At(35), 2.0 * (0.1 + 0.9 * 0.5 * (1 + std::sqrt(0.5))), 1e-12);
  EXPECT_NEAR(Make(Decay::kLinear).At(60), 2.0 * 0.55, 1e-12);
  // WSD falls in the last 20% of all steps: 88 to 110.
  EXPECT_DOUBLE_EQ(Make(Decay::kWsd).At(88), 2.0);
  EXPECT_NEAR(Make(Decay::kWsd).At(99), 2.0 * 0.55, 1e-12);
}

TEST(ScheduleTest, NothingIsEverAboveThePeakOrNegative) {
  for (const DecayRow& row : DecayTable()) {
    for (int64_t total : {1, 2, 7, 100}) {
      for (int64_t warmup : {int64_t{0}, int64_t{1}, total}) {
        Schedule schedule{
            .peak = 1.0, .total_steps = total, .warmup_steps = warmup, .min_ratio = 0.0, .decay = row.decay};
        for (int64_t step = 0; step < total + 3; ++step) {
          ASSERT_GE(schedule.At(step), 0.0) << row.name << " " << total << " " << warmup << " " << step;
          ASSERT_LE(schedule.At(step), 1.0) << row.name << " " << total << " " << warmup << " " << step;
        }
      }
    }
  }
}

TEST(ScheduleTest, NamesAreParsed) {
  EXPECT_EQ(ParseDecay("wsd"), Decay::kWsd);
  EXPECT_EQ(ParseDecay("exponential"), std::nullopt);
}

}  // namespace
}  // namespace cohort::runtime
