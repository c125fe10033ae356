// A coordinator in a folder of a test's own, and clients of it.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "runtime/elastic/coordinator/client.h"
#include "runtime/elastic/coordinator/coordinator.h"
#include "runtime/file.h"
#include "tests/support/temp_folder.h"

namespace cohort::cluster {

inline absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

inline bool Eventually(const std::function<bool()>& condition) {
  for (const absl::Time end = Soon(); absl::Now() < end; absl::SleepFor(absl::Milliseconds(5))) {
    if (condition()) return true;
  }
  return false;
}

struct CoordinatorTest : ::testing::Test {
  void SetUp() override { state = folder.Path("state"); }

  // The first time on any port, then on the same.
  void Start() {
    CoordinatorOptions options;
    options.state = state;
    options.listen = absl::StrCat("127.0.0.1:", port.load());
    options.metrics = metrics;
    options.lease = lease;
    options.events = events;
    auto started = Coordinator::Start(options);
    ASSERT_TRUE(started.ok()) << started.status();
    coordinator = *std::move(started);
    port = coordinator->port();
  }
  void Restart() {
    coordinator.reset();
    Start();
  }
  std::shared_ptr<Client> NewClient(const std::string& name, v1::MemberRole role = v1::MEMBER_ROLE_LAUNCHED) {
    ClientOptions options;
    options.coordinator = absl::StrCat("127.0.0.1:", port.load());
    options.job = "job";
    options.name = name;
    options.role = role;
    return *Client::Create(options);
  }
  std::shared_ptr<Client> Joined(const std::string& name, v1::MemberRole role = v1::MEMBER_ROLE_LAUNCHED) {
    auto client = NewClient(name, role);
    const absl::Status status = client->Join(Soon());
    EXPECT_TRUE(status.ok()) << status;
    return client;
  }
  v1::DescribeResponse Describe() {
    const auto described = NewClient("onlooker")->Describe(100, Soon());
    EXPECT_TRUE(described.ok()) << described.status();
    return described.value_or(v1::DescribeResponse());
  }
  std::vector<nlohmann::json> EventLines() {
    std::vector<nlohmann::json> lines;
    const std::string text = runtime::ReadFile(state + "/events.jsonl").value_or("");
    for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      lines.push_back(nlohmann::json::parse(line));
    }
    return lines;
  }

  TempFolder folder;
  std::string state, events, metrics;
  absl::Duration lease = absl::Milliseconds(600);
  std::atomic<int> port = 0;  // threads of a test make clients while it restarts
  std::unique_ptr<Coordinator> coordinator;
};

}  // namespace cohort::cluster
