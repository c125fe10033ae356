// Which GPU a rank takes that comes while others have theirs.
#include "tools/cohort/claimed_gpu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace cohort::tools {
namespace {

TEST(ClaimPlace, TakesOneThatNobodyHasAndSharesTheFirstWhereAllAreTaken) {
  const std::string ours = absl::StrCat("of test ", getpid(), " ");
  const auto hardware = [&](int place) { return ours + std::to_string(place); };
  EXPECT_EQ(ClaimPlace(3, 1, hardware), 1);
  EXPECT_EQ(ClaimPlace(3, 1, hardware), 2);
  EXPECT_EQ(ClaimPlace(3, 4, hardware), 0);
  EXPECT_EQ(ClaimPlace(3, 4, hardware), 1) << "shared";
}

TEST(ClaimPlace, AClaimGoesWithItsProcess) {
  const std::string ours = absl::StrCat("of test ", getpid(), ", in turn ");
  const auto hardware = [&](int place) { return ours + std::to_string(place); };
  for (int turn = 0; turn < 2; ++turn) {
    const pid_t child = fork();
    if (child == 0) {
      const bool both = ClaimPlace(2, 0, hardware) == 0 && ClaimPlace(2, 0, hardware) == 1;
      _exit(both ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << turn;
  }
}

TEST(ClaimDevice, SaysWhatItMustBe) {
  EXPECT_TRUE(ClaimDevice("cpu", 3).ok());
  EXPECT_THAT(std::string(ClaimDevice("gpu", 0).status().message()), ::testing::HasSubstr("cpu or cuda"));
}

}  // namespace
}  // namespace cohort::tools
