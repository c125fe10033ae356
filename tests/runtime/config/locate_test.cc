#include "runtime/config/locate.h"

#include <gtest/gtest.h>

#include "tests/support/temp_folder.h"

namespace cohort::runtime {
namespace {

TEST(WithPlaceTest, NamesTheLineOrTheOverrideThatSaidIt) {
  const TempFolder folder;
  const std::string file =
      folder.Write("c.yaml", "output: x\noptimizer:\n  lr: -1\nmodel:\n  num_experts: 0\n");
  const auto message = [&](const std::string& text, const std::vector<std::string>& overrides) {
    return std::string(WithPlace(absl::InvalidArgumentError(text), file, overrides).message());
  };
  EXPECT_EQ(message("optimizer.lr is -1; it must be above 0", {}),
            file + ":3: optimizer.lr is -1; it must be above 0");
  EXPECT_EQ(message("section model: \"num_experts\" must be from 1 to 65536, it is 0", {}),
            file + ":5: section model: \"num_experts\" must be from 1 to 65536, it is 0");
  EXPECT_EQ(message("optimizer.lr is -2; bad", {"optimizer.lr=-1", "optimizer.lr=-2"}),
            "--set optimizer.lr=-2: optimizer.lr is -2; bad");
  EXPECT_EQ(message("train.steps is 0; bad", {}), "train.steps is 0; bad") << "a default: nobody wrote it";
  EXPECT_EQ(message("", {}), "");
  EXPECT_TRUE(WithPlace(absl::OkStatus(), file, {}).ok());
  EXPECT_EQ(WithPlace(absl::InvalidArgumentError("a.b is 1"), "/nowhere.yaml", {}).message(), "a.b is 1");
}

}  // namespace
}  // namespace cohort::runtime
