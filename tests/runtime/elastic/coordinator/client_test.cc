// Clients of a coordinator that goes and comes back, over real sockets.
#include "runtime/elastic/coordinator/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "runtime/elastic/coordinator/board.h"
#include "runtime/elastic/coordinator/rendezvous.h"
#include "tests/runtime/elastic/coordinator/coordinator_fixture.h"

namespace cohort::cluster {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(CoordinatorTest, MembersRenewReportAndLeave) {
  metrics = "127.0.0.1:0";
  Start();
  const auto a = Joined("a"), b = Joined("b");
  v1::StepReport report;
  report.set_step(12);
  report.set_phase("forward");
  report.set_compute_seconds(0.25);
  report.set_tokens(100);
  a->SetReport(report);
  ASSERT_TRUE(Eventually([&] { return Describe().members(0).report().step() == 12; }));
  EXPECT_EQ(a->AdvanceEpoch({0, 1, {"a", "b"}, "2 ranks", 1, "start"}, Soon())->number(), 1u);
  EXPECT_TRUE(Eventually([&] { return b->standing().in_epoch; }));
  EXPECT_DOUBLE_EQ(Describe().tokens_per_second(), 400);
  EXPECT_TRUE(NewClient("operator")->RequestLeave("b", "maintenance", Soon()).ok());
  EXPECT_TRUE(Eventually([&] { return b->standing().leave_requested; }));
  EXPECT_EQ(b->standing().leave_reason, "maintenance");
  EXPECT_TRUE(b->Leave("as asked", Soon()).ok());
  EXPECT_TRUE(Eventually([&] { return a->standing().gone == std::vector<std::string>{"b"}; }));
  a->Tell(v1::EVENT_KIND_RECONFIGURATION_ENDED, 13, "b has gone", 0.5);
  EXPECT_TRUE(a->Flush(Soon()));
  EXPECT_TRUE(Eventually([&] {
    const std::string text = coordinator->metrics();
    return text.find("cohort:cluster_reconfiguration_seconds_total 0.5") != std::string::npos &&
           text.find("cohort:cluster_members{state=\"live\"} 1") != std::string::npos &&
           text.find("cohort:cluster_step 12") != std::string::npos;
  })) << coordinator->metrics();
  httplib::Client http(absl::StrCat("http://127.0.0.1:", coordinator->metrics_port()));
  const auto page = http.Get("/metrics");
  ASSERT_TRUE(page);
  EXPECT_THAT(page->body, HasSubstr("cohort:cluster_epoch 1"));
}

TEST_F(CoordinatorTest, ADeadMembersLeaseRunsOut) {
  Start();
  auto a = Joined("a"), b = Joined("b");
  ASSERT_TRUE(a->AdvanceEpoch({0, 1, {"a", "b"}, "", 0, ""}, Soon()).ok());
  b.reset();
  EXPECT_TRUE(Eventually([&] { return a->standing().gone == std::vector<std::string>{"b"}; }));
  ASSERT_TRUE(a->AdvanceEpoch({1, 2, {"a"}, "", 5, "without b"}, Soon()).ok());
  EXPECT_EQ(Describe().totals().leases_expired(), 1);
  EXPECT_THAT(coordinator->metrics(), HasSubstr("cohort:cluster_events_total{kind=\"lease_expired\"} 1"));
}

TEST_F(CoordinatorTest, TheOtherHalfIsFencedAndEvicted) {
  Start();
  const auto a = Joined("a"), b = Joined("b");
  ASSERT_TRUE(a->AdvanceEpoch({0, 1, {"a", "b"}, "", 0, ""}, Soon()).ok());
  ASSERT_TRUE(a->AdvanceEpoch({1, 2, {"a"}, "", 0, ""}, Soon()).ok());
  const auto refused = b->AdvanceEpoch({1, 2, {"b"}, "", 0, ""}, Soon());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  const auto present = PresentEpoch(refused.status());
  ASSERT_TRUE(present.has_value());
  EXPECT_EQ(present->number(), 2u);
  EXPECT_THAT(present->members(), ElementsAre("a"));
  EXPECT_TRUE(Eventually([&] { return b->standing().evicted; }));
  EXPECT_THAT(b->standing().why, HasSubstr("epoch 2"));
  EXPECT_FALSE(a->standing().evicted);
}

// The names of a large group do not fit what gRPC lets an error carry.
TEST_F(CoordinatorTest, ARefusalNamesManyMembersToo) {
  Start();
  const auto a = Joined("a"), b = Joined("b");
  std::vector<std::string> members = {"a"};
  for (int i = 0; i < 10000; ++i) members.push_back(absl::StrCat("some member on some host, number ", i));
  ASSERT_TRUE(a->AdvanceEpoch({0, 1, members, "", 0, ""}, Soon()).ok());
  const auto refused = b->AdvanceEpoch({0, 1, {"b"}, "", 0, ""}, Soon());
  ASSERT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition) << refused.status();
  EXPECT_EQ(PresentEpoch(refused.status())->members_size(), 10001);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("more"));
}

TEST_F(CoordinatorTest, ARestartChangesNothing) {
  Start();
  const auto a = Joined("a"), b = Joined("b");
  const int64_t id = a->standing().member_id;
  ASSERT_TRUE(a->AdvanceEpoch({0, 1, {"a", "b"}, "arrangement", 3, ""}, Soon()).ok());
  const v1::DescribeResponse before = Describe();
  coordinator.reset();
  ASSERT_TRUE(Eventually([&] { return !a->standing().reachable && !b->standing().reachable; }));
  a->Tell(v1::EVENT_KIND_NOTE, 4, "told while nobody listens");
  absl::SleepFor(2 * lease);  // longer than a lease
  Start();
  ASSERT_TRUE(Eventually([&] { return a->standing().incarnation == 2 && b->standing().incarnation == 2; }));
  EXPECT_TRUE(a->Flush(Soon()));
  absl::SleepFor(2 * lease);
  const v1::DescribeResponse after = Describe();
  EXPECT_EQ(after.epoch().SerializeAsString(), before.epoch().SerializeAsString());
  EXPECT_EQ(after.totals().leases_expired(), 0);
  EXPECT_EQ(after.members_size(), 2);
  EXPECT_EQ(a->standing().member_id, id);
  EXPECT_TRUE(a->standing().in_epoch);
  std::vector<std::string> kinds;
  uint64_t revision = 0;
  for (const nlohmann::json& line : EventLines()) {
    kinds.push_back(line["kind"]);
    EXPECT_EQ(line["revision"], ++revision);
  }
  EXPECT_THAT(kinds, ElementsAre("coordinator_started", "member_joined", "member_joined", "epoch",
                                 "coordinator_started", "note"));
}

// Members advance while the coordinator is away, and tell it later: in order, or the last one alone.
TEST_F(CoordinatorTest, EpochsOfItsAbsenceAreTold) {
  Start();
  const auto a = Joined("a"), b = Joined("b"), c = Joined("c");
  ASSERT_TRUE(a->AdvanceEpoch({0, 1, {"a", "b", "c"}, "", 0, ""}, Soon()).ok());
  ASSERT_TRUE(Eventually([&] { return c->standing().in_epoch; }));
  coordinator.reset();
  a->RecordEpoch({1, 2, {"a", "b", "c"}, "", 1, "again"});
  b->RecordEpoch({2, 3, {"a", "b"}, "", 2, "without c"});  // another leads now, who has not led before
  const absl::Time begin = absl::Now();
  EXPECT_EQ(a->AdvanceEpoch({3, 4, {"a"}, "", 3, ""}, absl::Now() + absl::Milliseconds(300)).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  Start();
  EXPECT_TRUE(a->Flush(Soon()));
  EXPECT_TRUE(b->Flush(Soon()));
  ASSERT_TRUE(Eventually([&] { return Describe().epoch().number() == 3; }));
  EXPECT_TRUE(Eventually([&] { return c->standing().evicted; }));
  EXPECT_FALSE(a->standing().evicted);
  EXPECT_FALSE(b->standing().evicted);
}

TEST_F(CoordinatorTest, ALostStateIsToldAnew) {
  Start();
  const auto a = Joined("a"), b = Joined("b"), c = Joined("c");
  ASSERT_TRUE(a->AdvanceEpoch({0, 1, {"a", "b", "c"}, "", 0, ""}, Soon()).ok());
  ASSERT_TRUE(a->AdvanceEpoch({1, 2, {"a", "b"}, "arrangement", 0, ""}, Soon()).ok());
  ASSERT_TRUE(Eventually([&] { return b->standing().epoch == 2 && c->standing().evicted; }));
  coordinator.reset();
  std::filesystem::remove_all(state);
  Start();
  EXPECT_TRUE(Eventually([&] { return Describe().epoch().arrangement() == "arrangement"; }));
  ASSERT_TRUE(Eventually([&] {
    const v1::DescribeResponse all = Describe();
    return all.members_size() == 3 &&
           all.members(0).rank() + all.members(1).rank() + all.members(2).rank() == 0;
  }));
  EXPECT_FALSE(b->standing().evicted);
}

TEST_F(CoordinatorTest, TheBoardOutlivesTheCoordinator) {
  Start();
  const auto newcomer = Joined("n", v1::MEMBER_ROLE_NEWCOMER), member = Joined("m");
  const auto posting = GrpcJoinBoard(newcomer), answering = GrpcJoinBoard(member);
  const std::string card("any\0bytes\xff", 10);
  ASSERT_TRUE(posting->Post("card 1", card).ok());
  EXPECT_TRUE(Eventually([&] { return member->standing().newcomers_waiting == 1; }));
  Restart();
  EXPECT_THAT(*answering->Waiting(), ElementsAre(std::pair<std::string, std::string>("card 1", card)));
  EXPECT_EQ(*posting->Answered("card 1"), std::nullopt);
  std::thread waiting([&] {
    std::optional<std::string> answer;
    EXPECT_TRUE(Eventually([&] {
      answer = *posting->Answered("card 1");
      return answer.has_value();
    }));
    EXPECT_EQ(answer, "come" + card);
  });
  ASSERT_TRUE(answering->Answer("card 1", "come" + card).ok());
  waiting.join();
  EXPECT_TRUE(answering->Waiting()->empty());
  EXPECT_TRUE(posting->Withdraw("card 1").ok());
  EXPECT_EQ(*posting->Answered("card 1"), std::nullopt);
  coordinator.reset();
  const auto hasty = GrpcJoinBoard(member, {absl::Milliseconds(50), true});
  EXPECT_TRUE(hasty->Waiting()->empty());
  EXPECT_EQ(hasty->Post("x", "y").code(), absl::StatusCode::kUnavailable);
}

// A communicator of ranks that meet at the coordinator, which goes and comes back meanwhile.
TEST_F(CoordinatorTest, RanksMeetThere) {
  Start();
  const int size = 3;
  std::vector<std::thread> ranks;
  std::atomic<int> met = 0;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([&, rank] {
      const auto meeting = GrpcRendezvous(NewClient("onlooker"), "launch", rank, size);
      EXPECT_EQ(meeting->rank(), rank);
      EXPECT_EQ(meeting->size(), size);
      absl::SleepFor(absl::Milliseconds(150 * rank));
      const std::string value = absl::StrCat("value of ", rank);
      ASSERT_TRUE(meeting->Put(absl::StrCat(rank), value).ok());
      ASSERT_TRUE(meeting->Put(absl::StrCat(rank), value).ok());
      for (int peer = 0; peer < size; ++peer) {
        const auto got = meeting->Get(absl::StrCat(peer), Soon());
        ASSERT_TRUE(got.ok()) << got.status();
        EXPECT_EQ(*got, absl::StrCat("value of ", peer));
      }
      ++met;
    });
  }
  absl::SleepFor(absl::Milliseconds(50));
  Restart();
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(met, size);
  const auto meeting = GrpcRendezvous(NewClient("onlooker"), "launch", 0, size);
  EXPECT_EQ(meeting->Put("0", "another").code(), absl::StatusCode::kAlreadyExists);
  const absl::Time begin = absl::Now();
  const auto missing = meeting->Get("missing", absl::Now() + absl::Milliseconds(200));
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("missing"));
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(200));
}

// Renewals come every half second, and ten of these steps take less.
TEST_F(CoordinatorTest, UnusualStepsAreToldAndJudgedAtOnce) {
  lease = absl::Seconds(2);
  Start();
  const auto a = Joined("a"), b = Joined("b");
  ASSERT_TRUE(a->AdvanceEpoch({0, 1, {"a", "b"}, "2 ranks", 1, "start"}, Soon()).ok());
  ASSERT_TRUE(Eventually([&] { return b->standing().in_epoch; }));
  std::vector<float> computed[2];
  int64_t step = 0;
  const auto train = [&](int64_t until, float slow, bool unusual) {
    for (; step < until && b->standing().straggler_since == 0; absl::SleepFor(absl::Milliseconds(30))) {
      ++step;
      for (const int rank : {0, 1}) {
        computed[rank].push_back(rank == 1 ? 0.02f * slow : 0.02f);
        v1::StepReport report;
        report.set_step(step);
        report.set_unusual(unusual);
        report.set_compute_seconds(computed[rank].back());
        report.mutable_recent_compute_seconds()->Add(computed[rank].begin(), computed[rank].end());
        (rank == 0 ? a : b)->SetReport(report);
      }
    }
  };
  train(20, 1, false);
  EXPECT_EQ(b->standing().straggler_since, 0);
  train(40, 2, true);
  const int64_t named = b->standing().straggler_since;
  EXPECT_GT(named, 20);
  EXPECT_LE(named, 30);
  // It knows soon as well.
  EXPECT_LE(step, named + 4);
}

// Nothing of a client's that has no deadline waits for a coordinator that hangs.
TEST_F(CoordinatorTest, ATrainingThreadNeverWaits) {
  Start();
  auto a = Joined("a");
  coordinator.reset();
  const absl::Time begin = absl::Now();
  for (int i = 0; i < 10000; ++i) {
    v1::StepReport report;
    report.set_step(i);
    a->SetReport(report);
    a->Tell(v1::EVENT_KIND_NOTE, i, "note");
    a->RecordEpoch({0, 1, {"a"}, "", 0, ""});
    (void)a->standing();
  }
  EXPECT_LT(absl::Now() - begin, absl::Seconds(2));
  EXPECT_FALSE(a->Flush(absl::Now() + absl::Milliseconds(10)));
  a.reset();
  EXPECT_LT(absl::Now() - begin, absl::Seconds(4));
}

}  // namespace
}  // namespace cohort::cluster
