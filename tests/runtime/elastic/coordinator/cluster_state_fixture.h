// A state, a clock, and members.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/elastic/coordinator/cluster_state.h"
#include "tests/runtime/elastic/coordinator/commands.h"

namespace cohort::cluster {

struct ClusterStateTest : ::testing::Test {
  ClusterStateTest() { Do(Begin()); }

  Outcome Do(const v1::ClusterCommand& command) { return state.Apply(command, now); }
  int64_t JoinAs(const std::string& name, const std::string& session = "", uint64_t last_epoch = 0) {
    Outcome outcome =
        Do(Join(name, session.empty() ? absl::StrCat("session of ", name) : session, last_epoch));
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    return outcome.status.ok() ? std::get<v1::JoinResponse>(outcome.reply).member_id() : 0;
  }
  v1::RenewResponse RenewAs(int64_t id) {
    Outcome outcome = Do(Renew(id));
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    return outcome.status.ok() ? std::get<v1::RenewResponse>(outcome.reply) : v1::RenewResponse();
  }
  // Time passes with looks at the leases, in which those of `renewing` are kept.
  void Pass(absl::Duration time, const std::vector<int64_t>& renewing = {}) {
    for (const absl::Time end = now + time; now < end;) {
      now += absl::Milliseconds(100);
      for (const int64_t id : renewing) Do(Renew(id));
      Do(Tick());
    }
  }

  absl::Time now = absl::FromUnixSeconds(1'800'000'000);
  ClusterState state{absl::Seconds(2)};
};

inline std::vector<std::string> Kinds(const std::vector<v1::Event>& events) {
  std::vector<std::string> kinds;
  for (const v1::Event& event : events) kinds.push_back(v1::EventKind_Name(event.kind()).substr(11));
  return kinds;
}

}  // namespace cohort::cluster
