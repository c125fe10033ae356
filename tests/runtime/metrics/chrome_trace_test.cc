#include "runtime/metrics/chrome_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <vector>

#include "runtime/file.h"
#include "tests/runtime/checkpoint/file_size_limit.h"
#include "tests/support/temp_folder.h"

namespace cohort::runtime {
namespace {

TEST(ChromeTraceTest, EventsOfEveryThread) {
  TempFolder temp;
  const std::string path = temp.path() + "/trace.json";
  ASSERT_TRUE(ChromeTrace::Start(path, 3).ok());
  EXPECT_EQ(ChromeTrace::Start(path, 3).code(), absl::StatusCode::kFailedPrecondition);
  {
    TraceScope outer("outer");
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([] {
        for (int i = 0; i < 2000; ++i) TraceScope scope("inner \"quoted\"");
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  ASSERT_TRUE(ChromeTrace::Stop().ok());

  const auto trace = nlohmann::json::parse(*ReadFile(path), nullptr, false);
  ASSERT_TRUE(trace.is_array());
  std::set<int64_t> threads;
  int inner = 0, outer = 0;
  for (const auto& event : trace) {
    EXPECT_EQ(event["pid"], 3);
    if (event["ph"] == "M") continue;
    EXPECT_EQ(event["ph"], "X");
    EXPECT_GE(event["ts"].get<int64_t>(), 0);
    EXPECT_GE(event["dur"].get<int64_t>(), 0);
    threads.insert(event["tid"].get<int64_t>());
    inner += event["name"] == "inner \"quoted\"";
    outer += event["name"] == "outer";
  }
  EXPECT_EQ(inner, 6000);
  EXPECT_EQ(outer, 1);
  EXPECT_EQ(threads.size(), 4u);
}

TEST(ChromeTraceTest, OffRecordsNothing) {
  EXPECT_FALSE(ChromeTrace::enabled());
  TraceScope before("before");
  TempFolder temp;
  const std::string path = temp.path() + "/trace.json";
  ASSERT_TRUE(ChromeTrace::Start(path, 0).ok());
  ASSERT_TRUE(ChromeTrace::Stop().ok());
  EXPECT_TRUE(ChromeTrace::Stop().ok());
  EXPECT_EQ(nlohmann::json::parse(*ReadFile(path), nullptr, false).size(), 1u);  // the process's name
}

TEST(ChromeTraceTest, AFullDiskIsReportedByStop) {
  TempFolder temp;
  const std::string path = temp.path() + "/trace.json";
  EXPECT_EQ(ChromeTrace::Start("/dev/full", 0).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(ChromeTrace::enabled());
  ASSERT_TRUE(ChromeTrace::Start(path, 0).ok());
  const FileSizeLimit full(1000);
  for (int i = 0; i < 10000; ++i) TraceScope scope("step");
  EXPECT_EQ(ChromeTrace::Stop().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(ChromeTrace::enabled());
}

}  // namespace
}  // namespace cohort::runtime
