#include "runtime/metrics/jsonl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/runtime/checkpoint/file_size_limit.h"
#include "tests/support/temp_folder.h"

namespace cohort::runtime {
namespace {

StepMetrics Step(int64_t step) {
  StepMetrics metrics;
  metrics.step = step;
  metrics.loss = 2.5;
  metrics.tokens = 1024;
  return metrics;
}

class JsonLinesTest : public ::testing::Test {
 protected:
  std::string Text() { return *ReadFile(path_); }
  TempFolder temp_;
  const std::string path_ = temp_.path() + "/metrics.jsonl";
};

TEST_F(JsonLinesTest, OneObjectAStep) {
  auto writer = JsonLinesWriter::Open(path_);
  ASSERT_TRUE(writer.ok()) << writer.status();
  StepMetrics metrics = Step(1);
  metrics.lr = 3e-4;
  metrics.expert_load = {{3, 5}, {8, 0}};
  metrics.dropped = 2;
  ASSERT_TRUE(writer->Add(ToJson(metrics)).ok());
  ASSERT_TRUE(writer->Add(ToJson(EvaluationMetrics{1, 2.0, 1.5, 99})).ok());
  std::ifstream file(path_);
  std::string first, second, third;
  std::getline(file, first);
  std::getline(file, second);
  EXPECT_FALSE(std::getline(file, third));
  const auto step = nlohmann::json::parse(first, nullptr, false);
  EXPECT_EQ(step["step"], 1);
  EXPECT_EQ(step["loss"], 2.5);
  EXPECT_EQ(step["tokens"], 1024);
  EXPECT_EQ(step["lr"], 3e-4);
  EXPECT_TRUE(step.contains("seconds") && step.contains("grad_norm"));
  EXPECT_EQ(step["expert_load"][1][0], 8);
  EXPECT_EQ(step["dropped"], 2);
  EXPECT_EQ(nlohmann::json::parse(second, nullptr, false)["bits_per_byte"], 1.5);
}

TEST_F(JsonLinesTest, DenseModelsHaveNoExpertLoad) {
  EXPECT_FALSE(nlohmann::json::parse(ToJson(Step(1)), nullptr, false).contains("expert_load"));
}

TEST_F(JsonLinesTest, NumbersThatAreNotFiniteAreNull) {
  StepMetrics metrics = Step(1);
  metrics.loss = std::numeric_limits<double>::quiet_NaN();
  metrics.grad_norm = std::numeric_limits<double>::infinity();
  const auto json = nlohmann::json::parse(ToJson(metrics), nullptr, false);
  EXPECT_TRUE(json["loss"].is_null());
  EXPECT_TRUE(json["grad_norm"].is_null());
}

TEST_F(JsonLinesTest, ATornLineIsEnded) {
  std::ofstream(path_) << ToJson(Step(1)) << "\n{\"step\":2,\"lo";
  auto writer = JsonLinesWriter::Open(path_);
  ASSERT_TRUE(writer->Add(ToJson(Step(2))).ok());
  EXPECT_EQ(Text(), ToJson(Step(1)) + "\n{\"step\":2,\"lo\n" + ToJson(Step(2)) + "\n");
}

TEST_F(JsonLinesTest, ResumingForgetsWhatIsDoneAgain) {
  {
    auto writer = JsonLinesWriter::Open(path_);
    for (int step = 1; step <= 5; ++step) ASSERT_TRUE(writer->Add(ToJson(Step(step))).ok());
  }
  std::ofstream(path_, std::ios::app) << "{\"step\":6,\"lo";
  auto writer = JsonLinesWriter::Open(path_, 3);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Add(ToJson(Step(4))).ok());
  std::string expected;
  for (int step = 1; step <= 4; ++step) expected += ToJson(Step(step)) + "\n";
  EXPECT_EQ(Text(), expected);
  EXPECT_FALSE(std::filesystem::exists(path_ + ".partial"));
}

// By which whoever goes on knows whether the step that it goes on from was written.
TEST_F(JsonLinesTest, ResumingSaysWhichStepWasWrittenLast) {
  std::ofstream(path_) << ToJson(Step(1)) << "\n"
                       << ToJson(Step(2)) << "\n"
                       << ToJson(EvaluationMetrics{.step = 3}) << "\n";
  EXPECT_EQ(JsonLinesWriter::Open(path_, 3)->resumed_at(), 2);
  EXPECT_EQ(JsonLinesWriter::Open(path_, 1)->resumed_at(), 1);
  EXPECT_EQ(JsonLinesWriter::Open(path_, 0)->resumed_at(), 0);
}

TEST_F(JsonLinesTest, AFullDiskIsReportedAndTearsNothing) {
  auto writer = JsonLinesWriter::Open(path_);
  ASSERT_TRUE(writer->Add(ToJson(Step(1))).ok());
  const std::string before = Text();
  {
    const FileSizeLimit full(before.size() + 7);
    EXPECT_EQ(writer->Add(ToJson(Step(2))).code(), absl::StatusCode::kResourceExhausted);
  }
  EXPECT_EQ(Text(), before);
  ASSERT_TRUE(writer->Add(ToJson(Step(3))).ok());
  EXPECT_EQ(Text(), before + ToJson(Step(3)) + "\n");
}

TEST_F(JsonLinesTest, FilesThatCannotBe) {
  EXPECT_TRUE(JsonLinesWriter::Open(temp_.path() + "/new/folder/metrics.jsonl").ok());
  EXPECT_FALSE(JsonLinesWriter::Open("/dev/null/metrics.jsonl").ok());
  EXPECT_FALSE(JsonLinesWriter::Open(temp_.path()).ok());
}

}  // namespace
}  // namespace cohort::runtime
