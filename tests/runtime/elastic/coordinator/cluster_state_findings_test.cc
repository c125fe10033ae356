// What the coordinator finds of members: events, and what it tells the members themselves.
#include <gmock/gmock.h>

#include "tests/runtime/elastic/coordinator/cluster_state_fixture.h"

namespace cohort::cluster {
namespace {

using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_F(ClusterStateTest, WhoComputesSlowerIsToldOnceAndWhenItIsOver) {
  std::vector<int64_t> ids;
  std::vector<std::string> names;
  for (int i = 0; i < 4; ++i) {
    names.push_back(absl::StrCat("rank ", i));
    ids.push_back(JoinAs(names.back()));
  }
  Do(Advance(ids[0], 0, 1, names));
  std::vector<v1::Event> told;
  const auto steps = [&](int64_t first, int64_t last, double slow) {
    for (int64_t step = first; step <= last; ++step) {
      for (size_t i = 0; i < ids.size(); ++i) {
        v1::ClusterCommand command = Renew(ids[i]);
        v1::StepReport& report = *command.mutable_renew()->mutable_report();
        report.set_step(step);
        report.set_compute_seconds(0.3 + 0.01 * static_cast<double>((step + static_cast<int64_t>(i)) % 3));
        if (i == 2) report.set_compute_seconds(report.compute_seconds() * slow);
        EXPECT_FALSE(Do(command).record.has_value());
      }
      now += absl::Milliseconds(400);
      Outcome outcome = Do(Tick());
      EXPECT_EQ(outcome.record.has_value(), !outcome.events.empty());
      told.insert(told.end(), outcome.events.begin(), outcome.events.end());
    }
  };
  steps(1, 30, 1);
  EXPECT_TRUE(told.empty());
  const v1::ClusterSnapshot before = state.Snapshot();
  steps(31, 60, 2);
  ASSERT_THAT(Kinds(told), ElementsAre("STRAGGLER"));
  EXPECT_EQ(told[0].subject(), "rank 2");
  EXPECT_EQ(told[0].rank(), 2);
  EXPECT_EQ(told[0].host(), "host");
  EXPECT_LE(told[0].step(), 40);
  EXPECT_THAT(told[0].words(),
              ContainsRegex("rank 2 \\(rank 2 on host\\) computes (1.9|2.0) times as long as the others"));
  EXPECT_THAT(state.Describe(0, now).members(2).verdict(),
              ContainsRegex("straggler: computes (1.9|2.0) times"));
  EXPECT_EQ(state.Describe(0, now).members(1).verdict(), "");
  EXPECT_EQ(state.Summarize().stragglers, 1);
  // It hears it itself: elastic.stragglers may say that it goes.
  EXPECT_EQ(RenewAs(ids[2]).straggler_since(), told[0].step());
  EXPECT_THAT(RenewAs(ids[2]).straggler_words(), HasSubstr("times as long"));
  EXPECT_EQ(RenewAs(ids[1]).straggler_since(), 0);
  // The journal tells it again in the same words.
  absl::StatusOr<ClusterState> again = ClusterState::Restore(before, absl::Seconds(2));
  v1::ClusterCommand record;
  v1::ClusterCommand::Finding& finding = *record.mutable_expire()->add_findings();
  finding.set_member_id(ids[2]);
  finding.set_kind(told[0].kind());
  finding.set_step(told[0].step());
  finding.set_words(told[0].words());
  finding.set_rank(2);
  finding.set_host("host");
  const Outcome outcome = again->Apply(record, absl::UnixEpoch() + absl::Seconds(told[0].time()));
  ASSERT_EQ(outcome.events.size(), 1u);
  EXPECT_EQ(outcome.events[0].SerializeAsString(), told[0].SerializeAsString());
  steps(61, 90, 1);
  EXPECT_THAT(Kinds(told), ElementsAre("STRAGGLER", "WELL"));
  EXPECT_EQ(state.Summarize().stragglers, 0);
  EXPECT_EQ(RenewAs(ids[2]).straggler_since(), 0);
  EXPECT_EQ(state.Describe(0, now).members(2).verdict(), "");
}

TEST_F(ClusterStateTest, ManyShortStepsComeInOneReport) {
  const int64_t a = JoinAs("a"), b = JoinAs("b");
  Do(Advance(a, 0, 1, {"a", "b"}));
  for (const int64_t id : {a, b}) {
    v1::ClusterCommand command = Renew(id);
    v1::StepReport& report = *command.mutable_renew()->mutable_report();
    report.set_step(40);
    for (int i = 0; i < 40; ++i) report.add_recent_compute_seconds(id == b ? 0.02F : 0.01F);
    Do(command);
  }
  const Outcome outcome = Do(Tick());
  ASSERT_THAT(Kinds(outcome.events), ElementsAre("STRAGGLER"));
  EXPECT_EQ(outcome.events[0].member(), "b");
  v1::ClusterCommand command = Renew(a);
  for (int i = 0; i < 65; ++i) command.mutable_renew()->mutable_report()->add_recent_compute_seconds(1);
  EXPECT_THAT(Do(command).status.message(), HasSubstr("recent_compute_seconds"));
}

// All wait for one that is stuck in the middle of a step, whose lease holds.
TEST_F(ClusterStateTest, WhoHangsIsSeen) {
  const int64_t a = JoinAs("a"), b = JoinAs("b");
  Do(Advance(a, 0, 1, {"a", "b"}));
  for (int tenth = 0; tenth < 80; ++tenth) {
    for (const int64_t id : {a, b}) {
      v1::ClusterCommand command = Renew(id);
      command.mutable_renew()->mutable_report()->set_step(7);
      command.mutable_renew()->mutable_report()->set_phase(id == a ? "wait for gradients" : "block forward");
      Do(command);
    }
    now += absl::Milliseconds(100);
    Do(Tick());
    if (tenth == 30) {
      EXPECT_EQ(state.Describe(0, now).members(1).verdict(), "");
    }
  }
  EXPECT_THAT(state.Describe(0, now).members(1).verdict(),
              HasSubstr("stopped: no step since 8 s, in block forward"));
  EXPECT_EQ(state.Describe(0, now).members(0).verdict(), "");
  const std::vector<v1::Event> told = state.EventsFrom(0);
  ASSERT_THAT(Kinds(told), Contains("STOPPED").Times(1));
  EXPECT_THAT(told.back().words(), HasSubstr("b (rank 1 on host) is stopped: no step since"));
}

// Members of two hosts; who is lost is taken out of the epoch by the others.
struct FindingsTest : ClusterStateTest {
  FindingsTest() {
    for (int i = 0; i < 4; ++i) {
      v1::ClusterCommand join = Join(std::string(1, static_cast<char>('a' + i)), absl::StrCat("session ", i));
      join.mutable_join()->set_host(i < 2 ? "one" : "two");
      join.mutable_join()->set_host_id(i < 2 ? "one" : "two");
      join.mutable_join()->set_pid(100 + i);
      ids.push_back(std::get<v1::JoinResponse>(Do(join).reply).member_id());
    }
    Do(Advance(ids[0], 0, 1, {"a", "b", "c", "d"}));
    Pass(absl::Seconds(1), ids);
  }
  // Renews as members do that look at the processes that they are asked to, and see this.
  void PassSeeing(absl::Duration time, const std::vector<int64_t>& renewing, v1::ProcessState what) {
    for (const absl::Time end = now + time; now < end;) {
      now += absl::Milliseconds(100);
      for (const int64_t id : renewing) {
        v1::ClusterCommand command = Renew(id);
        const v1::RenewResponse asked = RenewAs(id);
        for (const int64_t pid : asked.look_at()) {
          v1::ProcessSeen& seen = *command.mutable_renew()->add_seen();
          seen.set_pid(pid);
          seen.set_state(what);
        }
        Do(command);
      }
      Do(Tick());
    }
  }
  // Of the kinds of findings, in their order.
  std::vector<v1::Event> Found() {
    std::vector<v1::Event> found;
    for (const v1::Event& event : state.EventsFrom(0)) {
      if (event.kind() >= v1::EVENT_KIND_DEAD) found.push_back(event);
    }
    return found;
  }

  std::vector<int64_t> ids;
};

TEST_F(FindingsTest, ADeadOneIsFoundByItsHostBeforeItsLeaseRunsOut) {
  EXPECT_THAT(RenewAs(ids[0]).look_at(), IsEmpty());
  Do(Advance(ids[0], 1, 2, {"a", "c", "d"}));
  PassSeeing(absl::Milliseconds(400), {ids[0], ids[2], ids[3]}, v1::PROCESS_STATE_GONE);
  EXPECT_THAT(RenewAs(ids[0]).look_at(), ElementsAre(101));
  EXPECT_THAT(RenewAs(ids[2]).look_at(), IsEmpty());  // of another host
  ASSERT_THAT(Kinds(Found()), ElementsAre("DEAD"));
  EXPECT_EQ(Found()[0].words(), "b (rank 1 on one) is dead: its process is gone");
  EXPECT_EQ(Found()[0].rank(), 1);
  EXPECT_EQ(Found()[0].host(), "one");
  EXPECT_EQ(state.Summarize().dead, 1);
  EXPECT_EQ(state.Describe(0, now).members(1).verdict(), "dead: its process is gone");
  // Another coordinator does not say it again.
  absl::StatusOr<ClusterState> again = ClusterState::Restore(state.Snapshot(), absl::Seconds(2));
  state = *std::move(again);
  Do(Begin());
  PassSeeing(absl::Seconds(5), {ids[0], ids[2], ids[3]}, v1::PROCESS_STATE_GONE);
  EXPECT_THAT(Kinds(Found()), ElementsAre("DEAD"));
}

TEST_F(FindingsTest, AStoppedOneComesBack) {
  Do(Advance(ids[0], 1, 2, {"a", "c", "d"}));
  PassSeeing(absl::Seconds(4), {ids[0], ids[2], ids[3]}, v1::PROCESS_STATE_STOPPED);
  ASSERT_THAT(Kinds(Found()), ElementsAre("STOPPED"));
  EXPECT_EQ(state.Summarize().stopped, 1);
  PassSeeing(absl::Seconds(4), ids, v1::PROCESS_STATE_RUNS);
  ASSERT_THAT(Kinds(Found()), ElementsAre("STOPPED", "WELL"));
  EXPECT_THAT(Found()[1].words(), HasSubstr("b (rank 1 on one) is heard again, and not in the group"));
  Do(Advance(ids[0], 2, 3, {"a", "c", "d", "b"}));
  PassSeeing(absl::Seconds(4), ids, v1::PROCESS_STATE_RUNS);
  EXPECT_THAT(Kinds(Found()), ElementsAre("STOPPED", "WELL"));
}

// Its host waits for what its members see, and a member that nobody can look at is taken to be dead.
TEST_F(FindingsTest, NothingIsSaidBeforeTheHostHasLooked) {
  Pass(absl::Milliseconds(2300), {ids[0], ids[2], ids[3]});
  EXPECT_EQ(state.totals().leases_expired(), 1);
  EXPECT_THAT(Found(), IsEmpty());
  PassSeeing(absl::Milliseconds(300), {ids[0], ids[2], ids[3]}, v1::PROCESS_STATE_RUNS);
  ASSERT_THAT(Kinds(Found()), ElementsAre("STOPPED"));
  EXPECT_THAT(Found()[0].words(), HasSubstr("its process is there, and renews its lease no more"));
}

TEST_F(FindingsTest, AHostThatIsCutOff) {
  Do(Advance(ids[0], 1, 2, {"a", "b"}));
  Pass(absl::Seconds(3), {ids[0], ids[1]});
  ASSERT_THAT(Kinds(Found()), ElementsAre("CUT_OFF", "CUT_OFF"));
  EXPECT_EQ(Found()[0].words(), "c (rank 2 on two) is cut off: nobody on its host two is heard any more");
  EXPECT_EQ(state.Summarize().cut_off, 2);
  Do(Leave(ids[2]));  // which it can say again
  EXPECT_EQ(state.Summarize().cut_off, 1);
}

TEST_F(FindingsTest, WhoHearsTheCoordinatorAloneIsCutOff) {
  Do(Advance(ids[0], 1, 2, {"a", "b", "c"}));
  PassSeeing(absl::Milliseconds(1500), ids, v1::PROCESS_STATE_RUNS);
  EXPECT_THAT(Found(), IsEmpty());  // it may be about to say that it leaves
  PassSeeing(absl::Seconds(1), ids, v1::PROCESS_STATE_RUNS);
  ASSERT_THAT(Kinds(Found()), ElementsAre("CUT_OFF"));
  EXPECT_THAT(Found()[0].words(), HasSubstr("the coordinator hears it, and the members do not"));
}

TEST_F(FindingsTest, WhoLeavesIsNotLost) {
  Do(Advance(ids[0], 1, 2, {"a", "b", "c"}));
  PassSeeing(absl::Milliseconds(300), ids, v1::PROCESS_STATE_RUNS);
  Do(Leave(ids[3]));
  PassSeeing(absl::Seconds(5), {ids[0], ids[1], ids[2]}, v1::PROCESS_STATE_GONE);
  EXPECT_THAT(Found(), IsEmpty());
}

// The others go on in step with one whom only the coordinator does not hear.
TEST_F(FindingsTest, WhomOnlyTheCoordinatorDoesNotHear) {
  int64_t step = 0;
  for (int tenth = 0; tenth < 60; ++tenth) {
    now += absl::Milliseconds(100);
    ++step;
    for (const int64_t id : {ids[0], ids[1], ids[2]}) {
      v1::ClusterCommand command = Renew(id);
      command.mutable_renew()->mutable_report()->set_step(step);
      Do(command);
    }
    Do(Tick());
  }
  EXPECT_THAT(state.Describe(0, now).members(3).verdict(),
              "cut off: members reach it, and the coordinator does not");
}

}  // namespace
}  // namespace cohort::cluster
