#include "runtime/elastic/detect/step_watch.h"

#include <gtest/gtest.h>

#include "runtime/elastic/detect/policy.h"

namespace cohort::runtime::elastic {
namespace {

TEST(StepWatchTest, TheFirstStepsAreToldAtOnceAndThenWhatTakesLonger) {
  StepWatch watch;
  for (size_t step = 0; step < detect_policy::kFirstTold; ++step) EXPECT_TRUE(watch.Unusual(0.07)) << step;
  for (int step = 0; step < 100; ++step) EXPECT_FALSE(watch.Unusual(step % 2 == 0 ? 0.065 : 0.08)) << step;
  // Ten steps at half the speed, a third of which was waiting.
  for (int step = 0; step < 10; ++step) EXPECT_TRUE(watch.Unusual(0.07 * 5 / 3)) << step;
  EXPECT_FALSE(watch.Unusual(0.07));
}

TEST(StepWatchTest, WhatStaysBecomesUsual) {
  StepWatch watch;
  for (int step = 0; step < 100; ++step) watch.Unusual(0.1);
  int told = 0;
  for (int step = 0; step < 100; ++step) told += watch.Unusual(0.2);
  EXPECT_GE(told, 10);
  EXPECT_LE(told, static_cast<int>(detect_policy::kWatchedSteps));
  EXPECT_FALSE(watch.Unusual(0.2));
}

TEST(StepWatchTest, OfAnotherMeshNothingIsUsual) {
  StepWatch watch;
  for (int step = 0; step < 100; ++step) watch.Unusual(0.1);
  watch.Reset();
  EXPECT_TRUE(watch.Unusual(0.05));
}

}  // namespace
}  // namespace cohort::runtime::elastic
