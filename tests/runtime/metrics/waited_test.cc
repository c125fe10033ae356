#include "runtime/metrics/waited.h"

#include <gtest/gtest.h>

#include <thread>

#include "absl/time/clock.h"

namespace cohort::runtime {
namespace {

TEST(WaitedTest, AddsUpWithoutCountingTwice) {
  const double before = WaitedSeconds();
  const absl::Time begin = absl::Now();
  {
    const WaitScope outer("wait for a test");
    absl::SleepFor(absl::Milliseconds(20));
    {
      const WaitScope inner("wait for a part of it");
      absl::SleepFor(absl::Milliseconds(20));
    }
    EXPECT_EQ(WaitedSeconds(), before);  // it is not over
  }
  const double outside = absl::ToDoubleSeconds(absl::Now() - begin);
  const double once = WaitedSeconds() - before;
  EXPECT_GE(once, 0.04);
  EXPECT_LE(once, outside);
  absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(WaitedSeconds() - before, once);
  { const WaitScope again("wait for a test"); }
  EXPECT_GE(WaitedSeconds() - before, once);
}

TEST(WaitedTest, IsTheThreadsOwn) {
  const double before = WaitedSeconds();
  std::thread([] {
    const WaitScope scope("wait for a test");
    absl::SleepFor(absl::Milliseconds(10));
  }).join();
  EXPECT_EQ(WaitedSeconds(), before);
}

}  // namespace
}  // namespace cohort::runtime
