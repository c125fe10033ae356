// Keepers for tests: each test has a job of its own, which is ended with it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/elastic/keeper/keeper.h"

namespace cohort::runtime::elastic {

class TestJob {
 public:
  TestJob() : name_(absl::StrCat("test-", getpid(), "-", absl::ToUnixNanos(absl::Now()))) {}
  ~TestJob() {
    if (getpid() != owner_) return;  // a child
    for (const std::string& host : hosts_) {
      const auto keeper = Keeper::Find(Options(host));
      if (keeper.ok()) (void)(*keeper)->End();
    }
  }
  KeeperOptions Options(const std::string& host = "here") {
    hosts_.insert(host);
    return {.job = name_, .host = host, .command = {COHORT_TEST_KEEPER}};
  }
  std::unique_ptr<Keeper> Connect(const std::string& host = "here") { return Connect(Options(host)); }
  std::unique_ptr<Keeper> Connect(KeeperOptions options) {
    auto keeper = Keeper::Connect(std::move(options));
    EXPECT_TRUE(keeper.ok()) << keeper.status();
    return keeper.ok() ? *std::move(keeper) : nullptr;
  }

 private:
  std::string name_;
  std::set<std::string> hosts_ = {"here"};
  pid_t owner_ = getpid();
};

}  // namespace cohort::runtime::elastic
