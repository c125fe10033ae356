#include "runtime/elastic/coordinator/cluster_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "absl/strings/str_cat.h"
#include "runtime/elastic/coordinator/policy.h"
#include "tests/runtime/elastic/coordinator/cluster_state_fixture.h"

namespace cohort::cluster {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_F(ClusterStateTest, LeasesRunOutAndComeBack) {
  const int64_t a = JoinAs("a"), b = JoinAs("b");
  Do(Advance(a, 0, 1, {"a", "b"}));
  Pass(absl::Milliseconds(1900));
  EXPECT_EQ(state.totals().leases_expired(), 0);
  RenewAs(a);
  Pass(absl::Milliseconds(200), {a});
  EXPECT_EQ(state.totals().leases_expired(), 1);
  EXPECT_THAT(RenewAs(a).gone(), ElementsAre("b"));
  EXPECT_EQ(state.Describe(0, now).members(1).state(), v1::MEMBER_STATE_EXPIRED);
  const v1::RenewResponse back = RenewAs(b);
  EXPECT_TRUE(back.in_epoch());
  EXPECT_FALSE(back.evicted());
  EXPECT_THAT(back.gone(), IsEmpty());
  EXPECT_THAT(Kinds(state.EventsFrom(0)), ElementsAre("COORDINATOR_STARTED", "MEMBER_JOINED", "MEMBER_JOINED",
                                                      "EPOCH", "LEASE_EXPIRED", "DEAD", "LEASE_BACK"));
}

// A coordinator that was stopped, or whose clock was set, does not take its own absence for the members'.
TEST_F(ClusterStateTest, TheCoordinatorsOwnAbsenceExpiresNobody) {
  JoinAs("a");
  Pass(absl::Seconds(1));
  for (const absl::Duration leap : {absl::Hours(3), -absl::Hours(5)}) {
    now += leap;
    Do(Tick());
    EXPECT_EQ(state.totals().leases_expired(), 0) << leap;
  }
  Pass(absl::Milliseconds(900));
  EXPECT_EQ(state.totals().leases_expired(), 0);
  Pass(absl::Milliseconds(300));
  EXPECT_EQ(state.totals().leases_expired(), 1);
}

TEST_F(ClusterStateTest, NamesAreHeldWhileTheirHoldersLive) {
  const int64_t a = JoinAs("a", "first");
  EXPECT_EQ(JoinAs("a", "first"), a);
  const Outcome taken = Do(Join("a", "second"));
  EXPECT_EQ(taken.status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_FALSE(taken.record.has_value());
  Pass(absl::Seconds(3));
  const int64_t next = JoinAs("a", "second");
  EXPECT_GT(next, a);
  EXPECT_EQ(Do(Renew(a)).status.code(), absl::StatusCode::kNotFound);
  v1::ClusterCommand other = Join("b", "session");
  other.mutable_join()->set_job("another");
  const Outcome refused = Do(other);
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr("serves the job job, not another"));
}

TEST_F(ClusterStateTest, VersionsDoNotMixWhileTheirMembersLive) {
  const auto join = [](const std::string& name, const std::string& version) {
    v1::ClusterCommand command = Join(name, "session of " + name);
    command.mutable_join()->set_version(version);
    return command;
  };
  EXPECT_TRUE(Do(join("a", "1.0")).status.ok());
  EXPECT_TRUE(Do(join("b", "1.0")).status.ok());
  EXPECT_TRUE(Do(join("onlooker", "")).status.ok());
  const Outcome refused = Do(join("c", "1.1"));
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status.message()),
              HasSubstr("this is version 1.1, and the job runs 1.0 (a): start it from the same build"));
  EXPECT_FALSE(refused.record.has_value());
  Pass(absl::Seconds(3));
  EXPECT_TRUE(Do(join("c", "1.1")).status.ok());
}

// A launcher that begins anew finds the coordinator of the launch before.
TEST_F(ClusterStateTest, AnotherJobBeginsWhenNobodyOfTheFormerLives) {
  const int64_t a = JoinAs("a"), b = JoinAs("b");
  Do(Advance(a, 0, 7, {"a", "b"}, "arrangement"));
  Do(Post("card", "text", b));
  v1::ClusterCommand other = Join("c", "session of c");
  other.mutable_join()->set_job("another");
  Pass(absl::Seconds(3), {b});
  EXPECT_EQ(Do(other).status.code(), absl::StatusCode::kFailedPrecondition);
  Pass(absl::Seconds(3));
  const Outcome joined = Do(other);
  ASSERT_TRUE(joined.status.ok()) << joined.status;
  const int64_t c = std::get<v1::JoinResponse>(joined.reply).member_id();
  EXPECT_EQ(state.Describe(0, now).job(), "another");
  EXPECT_EQ(state.newcomers_waiting(), 0);
  EXPECT_EQ(Do(Renew(a)).status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Do(Join("a", "session of a", 7)).status.code(), absl::StatusCode::kFailedPrecondition);
  // Also after a restart.
  state = *ClusterState::Restore(state.Snapshot(), absl::Seconds(2));
  Do(Begin());
  EXPECT_EQ(state.epoch().number(), 7u);
  ASSERT_TRUE(Do(Advance(c, 0, 1, {"c"})).status.ok());
  EXPECT_EQ(state.epoch().number(), 8u);
  EXPECT_EQ(state.epoch().counted(), 1u);
  EXPECT_TRUE(RenewAs(c).in_epoch());
}

TEST_F(ClusterStateTest, EpochsAreComparedAndSet) {
  const int64_t a = JoinAs("a"), b = JoinAs("b"), c = JoinAs("c"), d = JoinAs("d");
  ASSERT_TRUE(Do(Advance(a, 0, 1, {"a", "b", "c", "d"}, "whole")).status.ok());
  // Two halves: one is first, the other is told who is in.
  ASSERT_TRUE(Do(Advance(a, 1, 2, {"a", "b"}, "half")).status.ok());
  const Outcome late = Do(Advance(c, 1, 2, {"c", "d"}, "half"));
  EXPECT_EQ(late.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(late.status.message()), HasSubstr("epoch 2 is the present one, without c"));
  EXPECT_THAT(std::string(late.status.message()), HasSubstr("a, b"));
  v1::Epoch named;
  ASSERT_TRUE(named.ParseFromString(std::string(*late.status.GetPayload(kEpochPayload))));
  EXPECT_EQ(named.number(), 2u);
  EXPECT_THAT(named.members(), ElementsAre("a", "b"));
  // The same again, by whomever of the same side: nothing new.
  for (const int64_t who : {a, b}) {
    const Outcome again = Do(Advance(who, 1, 2, {"a", "b"}, "half"));
    EXPECT_TRUE(again.status.ok()) << again.status;
    EXPECT_FALSE(again.record.has_value());
  }
  EXPECT_TRUE(RenewAs(c).evicted());
  EXPECT_TRUE(RenewAs(d).evicted());
  EXPECT_FALSE(RenewAs(b).evicted());
  // Who was left behind is refused even where it has read the present number.
  EXPECT_EQ(Do(Advance(c, 2, 3, {"c", "d"})).status.code(), absl::StatusCode::kFailedPrecondition);
  // Epochs that nobody could tell may be passed over; the other way there is no way.
  EXPECT_TRUE(Do(Advance(a, 2, 9, {"a", "b"})).status.ok());
  EXPECT_EQ(Do(Advance(a, 9, 8, {"a", "b"})).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(state.epoch().number(), 9u);
  EXPECT_EQ(state.totals().fenced(), 2);
  // From one of which nobody has told: it hears which one is known here. No side that is behind, so no event.
  const Outcome ahead = Do(Advance(a, 11, 12, {"a", "b"}));
  EXPECT_EQ(ahead.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(ahead.status.GetPayload(kEpochPayload).has_value());
  EXPECT_EQ(state.totals().fenced(), 2);
}

TEST_F(ClusterStateTest, WhoBearsTheNameOfAGoneMemberIsNotInItsEpoch) {
  const int64_t a = JoinAs("a"), b = JoinAs("b");
  Do(Advance(a, 0, 1, {"a", "b"}));
  Pass(absl::Seconds(3), {a});
  EXPECT_EQ(Do(Renew(b)).status.code(), absl::StatusCode::kOk);
  Pass(absl::Seconds(3), {a});
  const int64_t fresh = JoinAs("b", "another process");
  EXPECT_FALSE(RenewAs(fresh).in_epoch());
  EXPECT_FALSE(RenewAs(fresh).evicted());
  EXPECT_THAT(RenewAs(a).gone(), ElementsAre("b"));
  Do(Advance(a, 1, 2, {"a"}));
  Do(Advance(a, 2, 3, {"a", "b"}));
  EXPECT_TRUE(RenewAs(fresh).in_epoch());
  EXPECT_THAT(RenewAs(a).gone(), IsEmpty());
}

// A coordinator whose state was lost is told everything again, in any order.
TEST_F(ClusterStateTest, MembersTellAnEmptyStateWhereTheyStand) {
  const int64_t a = JoinAs("a", "", 7);
  EXPECT_FALSE(RenewAs(a).evicted());
  ASSERT_TRUE(Do(Advance(a, 0, 8, {"a", "b"})).status.ok());
  const int64_t b = JoinAs("b", "", 7), c = JoinAs("c", "", 7), newcomer = JoinAs("n");
  EXPECT_TRUE(RenewAs(b).in_epoch());
  EXPECT_TRUE(RenewAs(c).evicted());
  EXPECT_FALSE(RenewAs(newcomer).evicted());
}

// A member that renews the lease of an id of the lost state must not renew another's: in whatever order they join again.
TEST_F(ClusterStateTest, IdsOfALostStateAreNobodysInTheNext) {
  const int64_t a = JoinAs("a"), b = JoinAs("b");
  now += absl::Milliseconds(20);
  state = ClusterState(absl::Seconds(2));
  Do(Begin());
  for (const char* name : {"b", "a"}) {
    const int64_t again = JoinAs(name, "", 2);
    EXPECT_NE(again, a);
    EXPECT_NE(again, b);
  }
  EXPECT_EQ(Do(Renew(a)).status.code(), absl::StatusCode::kNotFound);
}

TEST_F(ClusterStateTest, TheBoardShowsWhoWaits) {
  const int64_t a = JoinAs("a"), n = JoinAs("n");
  Do(Post("n 1", "card", n));
  Do(Post("loose", "card"));
  EXPECT_EQ(RenewAs(a).newcomers_waiting(), 2);
  EXPECT_EQ(state.Waiting().posts(0).name(), "n 1");
  Pass(absl::Seconds(3), {a});  // it is dead, it seems
  EXPECT_EQ(RenewAs(a).newcomers_waiting(), 1);
  RenewAs(n);
  EXPECT_EQ(RenewAs(a).newcomers_waiting(), 2);
  Do(Answer("n 1", "come"));
  Do(Answer("nobody", "come"));
  EXPECT_EQ(*state.Answered("n 1"), "come");
  EXPECT_EQ(state.Answered("nobody"), nullptr);
  EXPECT_EQ(RenewAs(a).newcomers_waiting(), 1);
  Do(Post("n 1", "another card", n));  // its answer was to the former
  EXPECT_EQ(state.Answered("n 1"), nullptr);
  Do(Leave(n));
  EXPECT_EQ(RenewAs(a).newcomers_waiting(), 1);
  Do(Withdraw("loose"));
  EXPECT_EQ(RenewAs(a).newcomers_waiting(), 0);
}

TEST_F(ClusterStateTest, RendezvousKeysAreWrittenOnce) {
  EXPECT_TRUE(Do(Put("launch", "key", "value")).record.has_value());
  EXPECT_FALSE(Do(Put("launch", "key", "value")).record.has_value());
  EXPECT_EQ(Do(Put("launch", "key", "other")).status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(Do(Put("another", "key", "other")).status.ok());
  EXPECT_EQ(*state.Value("launch", "key"), "value");
  for (size_t i = 0; i < policy::kLaunchesKept; ++i) Do(Put(absl::StrCat(i), "key", "value"));
  EXPECT_EQ(state.Value("launch", "key"), nullptr);
}

TEST_F(ClusterStateTest, ReportsCountOnce) {
  const int64_t a = JoinAs("a");
  EXPECT_TRUE(Do(Report(a, 1, v1::EVENT_KIND_RECONFIGURATION_ENDED, 0.5)).record.has_value());
  EXPECT_FALSE(Do(Report(a, 1, v1::EVENT_KIND_RECONFIGURATION_ENDED, 0.5)).record.has_value());
  EXPECT_TRUE(Do(Report(a, 5, v1::EVENT_KIND_RECONFIGURATION_ENDED, 0.25)).record.has_value());
  EXPECT_EQ(state.totals().reconfigurations(), 2);
  EXPECT_DOUBLE_EQ(state.totals().reconfiguration_seconds(), 0.75);
  EXPECT_EQ(Do(Report(a, 6, v1::EVENT_KIND_EPOCH)).status.code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ClusterStateTest, WhoIsAskedToLeaveLearnsIt) {
  const int64_t a = JoinAs("a");
  EXPECT_FALSE(RenewAs(a).leave_requested());
  EXPECT_TRUE(Do(AskToLeave("a")).record.has_value());
  EXPECT_FALSE(Do(AskToLeave("a")).record.has_value());
  EXPECT_TRUE(RenewAs(a).leave_requested());
  EXPECT_EQ(RenewAs(a).leave_reason(), "preempted");
  EXPECT_EQ(Do(AskToLeave("b")).status.code(), absl::StatusCode::kNotFound);
}

TEST_F(ClusterStateTest, ThroughputIsTheSumOfTheEpochsMembers) {
  const int64_t a = JoinAs("a"), b = JoinAs("b"), n = JoinAs("n");
  Do(Advance(a, 0, 1, {"a", "b"}));
  for (const int64_t id : {a, b, n}) {
    v1::ClusterCommand renew = Renew(id);
    v1::StepReport& report = *renew.mutable_renew()->mutable_report();
    report.set_step(10 + id);
    report.set_tokens(100);
    report.set_compute_seconds(0.3);
    report.set_wait_seconds(0.2);
    Do(renew);
  }
  const v1::DescribeResponse described = state.Describe(2, now);
  EXPECT_EQ(described.step(), 10 + b);
  EXPECT_DOUBLE_EQ(described.tokens_per_second(), 400);
  EXPECT_EQ(described.members(1).rank(), 1);
  EXPECT_EQ(described.members(2).rank(), -1);
  EXPECT_THAT(Kinds({described.events().begin(), described.events().end()}),
              ElementsAre("MEMBER_JOINED", "EPOCH"));
}

TEST_F(ClusterStateTest, BrokenRequestsNameTheFieldAndChangeNothing) {
  const int64_t a = JoinAs("a");
  const std::string before = state.Snapshot().SerializeAsString();
  const auto refused = [&](const v1::ClusterCommand& command, const std::string& word) {
    const Outcome outcome = Do(command);
    EXPECT_EQ(outcome.status.code(), absl::StatusCode::kInvalidArgument) << command.ShortDebugString();
    EXPECT_THAT(std::string(outcome.status.message()), HasSubstr(word));
    EXPECT_FALSE(outcome.record.has_value());
    EXPECT_EQ(state.Snapshot().SerializeAsString(), before);
  };
  refused(v1::ClusterCommand(), "kind");
  refused(Join("", "session"), "name");
  refused(Join(std::string(300, 'x'), "session"), "name");
  refused(Join("b", ""), "session");
  v1::ClusterCommand join = Join("b", "session");
  join.mutable_join()->set_launch_rank(4);
  join.mutable_join()->set_launch_size(4);
  refused(join, "launch_rank");
  join.mutable_join()->set_launch_rank(0);
  join.mutable_join()->set_role(v1::MEMBER_ROLE_UNSPECIFIED);
  refused(join, "role");
  refused(Advance(a, 0, 1, {}), "members");
  refused(Advance(a, 0, 1, {"a", "b", "b"}), "twice");
  refused(Advance(a, 0, 1, {"b"}), "has not a");
  refused(Advance(a, 0, 1, {"a"}, std::string(policy::kMaxValueBytes + 1, 'x')), "arrangement");
  refused(Post("", "text"), "name");
  refused(Post("n", std::string(policy::kMaxValueBytes + 1, 'x')), "text");
  refused(Put("", "key", "value"), "launch_id");
  refused(Put("launch", std::string(2000, 'k'), "value"), "key");
  refused(Report(a, 0, v1::EVENT_KIND_NOTE), "sequence");
  refused(Report(a, 1, static_cast<v1::EventKind>(99)), "kind");
  refused(Report(a, 1, v1::EVENT_KIND_NOTE, std::numeric_limits<double>::quiet_NaN()), "seconds");
  v1::ClusterCommand renew = Renew(a);
  renew.mutable_renew()->mutable_report()->set_compute_seconds(-1);
  refused(renew, "compute_seconds");
  v1::ClusterCommand ask = AskToLeave("");
  refused(ask, "member_id or name");
}

TEST_F(ClusterStateTest, TheGoneAreForgottenInTime) {
  const int64_t a = JoinAs("a"), b = JoinAs("b"), c = JoinAs("c");
  Do(Advance(a, 0, 1, {"a", "b", "c"}));
  Do(Leave(b));
  Pass(absl::Seconds(3), {a});
  Do(Advance(a, 1, 2, {"a"}));
  EXPECT_EQ(state.Describe(0, now).members_size(), 3);
  EXPECT_TRUE(RenewAs(c).evicted());  // it wakes, and learns it
  Pass(absl::Seconds(3), {a});
  Do(Advance(a, 2, 3, {"a"}));
  EXPECT_EQ(state.Describe(0, now).members_size(), 1);
  EXPECT_EQ(Do(Renew(c)).status.code(), absl::StatusCode::kNotFound);
  // Also without epochs the list does not grow for ever.
  for (size_t i = 0; i < policy::kGoneKept + 500; ++i) Do(Leave(JoinAs(absl::StrCat("brief ", i))));
  EXPECT_LE(state.Describe(0, now).members_size(), static_cast<int>(policy::kGoneKept) + 2);
}

TEST_F(ClusterStateTest, ASnapshotThatIsNoneIsRefused) {
  EXPECT_FALSE(ClusterState::Restore(v1::ClusterSnapshot(), absl::Seconds(2)).ok());
  JoinAs("a");
  v1::ClusterSnapshot snapshot = state.Snapshot();
  *snapshot.add_members() = snapshot.members(0);
  EXPECT_FALSE(ClusterState::Restore(snapshot, absl::Seconds(2)).ok());
  snapshot.mutable_members(1)->set_id(99);
  EXPECT_FALSE(ClusterState::Restore(snapshot, absl::Seconds(2)).ok());
}

}  // namespace
}  // namespace cohort::cluster
