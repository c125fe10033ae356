#include "runtime/metrics/activity.h"

#include <gtest/gtest.h>

#include <thread>

#include "runtime/metrics/chrome_trace.h"

namespace cohort::runtime {
namespace {

TEST(ActivityTest, WhatTheFollowedThreadDoesIsSeenFromOthers) {
  FollowActivity();
  EXPECT_EQ(CurrentActivity(), "");
  const TraceScope outer("outer");
  std::thread([] {
    EXPECT_EQ(CurrentActivity(), "outer");
    const TraceScope mine("of a thread that is not followed");
    EXPECT_EQ(CurrentActivity(), "outer");
  }).join();
  {
    const TraceScope inner("inner");
    EXPECT_EQ(CurrentActivity(), "inner");
  }
  EXPECT_EQ(CurrentActivity(), "outer");
  EXPECT_EQ(PublishActivity("nowhere").code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace cohort::runtime
