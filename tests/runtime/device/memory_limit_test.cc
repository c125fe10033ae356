// How much of a CUDA device a process takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/device/cuda/memory_limit.h"

namespace cohort::runtime {
namespace {

using ::testing::HasSubstr;

constexpr size_t kGiB = size_t{1} << 30;

TEST(MemoryLimitTest, AShareOfWhatIsFreeOrWhatIsAskedFor) {
  EXPECT_EQ(*MemoryLimit(100 * kGiB, nullptr), 92 * kGiB);
  EXPECT_EQ(*MemoryLimit(100 * kGiB, ""), 92 * kGiB);
  EXPECT_EQ(*MemoryLimit(100 * kGiB, "7.5"), 15 * kGiB / 2);
  EXPECT_EQ(*MemoryLimit(100 * kGiB, "100"), 100 * kGiB);
}

TEST(MemoryLimitTest, WhatCannotBeIsNamed) {
  for (const char* wrong : {"0", "-1", "much", "20GB", "nan"}) {
    const auto limit = MemoryLimit(100 * kGiB, wrong);
    ASSERT_EQ(limit.status().code(), absl::StatusCode::kInvalidArgument) << wrong;
    EXPECT_THAT(std::string(limit.status().message()),
                HasSubstr(std::string("COHORT_CUDA_MEMORY_GB=") + wrong));
  }
  EXPECT_THAT(std::string(MemoryLimit(10 * kGiB, "10.5").status().message()), HasSubstr("10.00 GiB free"));
}

}  // namespace
}  // namespace cohort::runtime
