#include "runtime/elastic/detect/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cohort::runtime::elastic {
namespace {

using ::testing::HasSubstr;

// At step 100, a step of 0.3 s ago.
Sighting Well(absl::string_view host) {
  return {.host = host,
          .step = 100,
          .step_seconds = 0.3,
          .phase = "block forward",
          .report_age_seconds = 0.2,
          .step_age_seconds = 0.2};
}
std::vector<Sighting> Four() { return {Well("a"), Well("a"), Well("b"), Well("b")}; }

std::vector<Health> Healths(const std::vector<Sighting>& members) {
  std::vector<Health> healths;
  for (const Verdict& verdict : Judge(members)) {
    healths.push_back(verdict.health);
    EXPECT_EQ(verdict.why.empty(), verdict.health == Health::kFine);
  }
  return healths;
}
constexpr Health kFine = Health::kFine, kDead = Health::kDead, kStopped = Health::kStopped,
                 kCutOff = Health::kCutOff;
using ::testing::ElementsAre;

TEST(VerdictTest, AllIsWell) { EXPECT_THAT(Healths(Four()), ElementsAre(kFine, kFine, kFine, kFine)); }

TEST(VerdictTest, ALeaseThatRanOut) {
  std::vector<Sighting> members = Four();
  members[1].lease = v1::MEMBER_STATE_EXPIRED;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kDead, kFine, kFine));
  members[1].process = v1::PROCESS_STATE_GONE;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kDead, kFine, kFine));
  members[1].process = v1::PROCESS_STATE_RUNS;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kStopped, kFine, kFine));
  members[1].reached = Known::kNo;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kCutOff, kFine, kFine));
  members[1].reached = Known::kYes;  // only the coordinator does not hear it
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kCutOff, kFine, kFine));
  members[1].lease = v1::MEMBER_STATE_LEFT;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kFine, kFine, kFine));
}

TEST(VerdictTest, AProcessThatIsGoneIsDeadBeforeItsLeaseRunsOut) {
  std::vector<Sighting> members = Four();
  members[2].process = v1::PROCESS_STATE_GONE;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kFine, kDead, kFine));
}

TEST(VerdictTest, WhoWasStoppedByASignal) {
  std::vector<Sighting> members = Four();
  members[1].lease = v1::MEMBER_STATE_EXPIRED;
  members[1].process = v1::PROCESS_STATE_STOPPED;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kStopped, kFine, kFine));
  // Before its lease has run out, where the others have gone on already.
  members[1].lease = v1::MEMBER_STATE_LIVE;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kFine, kFine, kFine));
  members[1].lost_seconds = 0.3;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kStopped, kFine, kFine));
}

TEST(VerdictTest, NothingIsSaidBeforeItsHostHasLooked) {
  std::vector<Sighting> members = Four();
  members[1].lease = v1::MEMBER_STATE_EXPIRED;
  members[1].asked = true;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kFine, kFine, kFine));
  members[1].process = v1::PROCESS_STATE_GONE;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kDead, kFine, kFine));
}

TEST(VerdictTest, WhoHearsTheCoordinatorAloneIsCutOff) {
  std::vector<Sighting> members = Four();
  members[3].lost_seconds = 1;  // it may have left
  members[3].process = v1::PROCESS_STATE_RUNS;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kFine, kFine, kFine));
  members[3].lost_seconds = 3;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kFine, kFine, kCutOff));
  EXPECT_EQ(Judge(members)[3].why, "the coordinator hears it, and the members do not");
  members[3].heard = false;  // not since: it may be dead as well
  EXPECT_TRUE(Judge(members)[3].open);
  members[3].heard = true;
  members[3].held = false;  // it was away, and is back
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kFine, kFine, kFine));
  members[3].process = v1::PROCESS_STATE_GONE;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kFine, kFine, kDead));
}

TEST(VerdictTest, AWholeHostIsCutOff) {
  std::vector<Sighting> members = Four();
  members[2].lease = members[3].lease = v1::MEMBER_STATE_EXPIRED;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kFine, kCutOff, kCutOff));
  EXPECT_THAT(Judge(members)[2].why, HasSubstr("host b"));
  members[2].process = v1::PROCESS_STATE_GONE;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kFine, kDead, kCutOff));
  // Of one host only nobody can tell.
  for (Sighting& member : members) member = Well("a");
  for (Sighting& member : members) member.lease = v1::MEMBER_STATE_EXPIRED;
  EXPECT_THAT(Healths(members), ElementsAre(kDead, kDead, kDead, kDead));
}

TEST(VerdictTest, WhoIsBehindAndStuckIsStopped) {
  std::vector<Sighting> members = Four();
  for (Sighting& member : members) {
    member.step_age_seconds = 8;
    member.phase = "wait for gradients";
  }
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kFine, kFine, kFine));  // nobody can be told apart
  members[3].step = 99;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kFine, kFine, kStopped));
  members[3].step_age_seconds = 3;  // not yet for long
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kFine, kFine, kFine));
}

TEST(VerdictTest, WhomAllOthersWaitForIsStopped) {
  std::vector<Sighting> members = Four();
  for (Sighting& member : members) {
    member.step_age_seconds = 8;
    member.phase = "wait for gradients";
  }
  members[0].phase = "block backward";
  EXPECT_THAT(Healths(members), ElementsAre(kStopped, kFine, kFine, kFine));
  members[1].phase = "block backward";
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kFine, kFine, kFine));
}

TEST(VerdictTest, LongStepsAreNotStuck) {
  std::vector<Sighting> members = Four();
  for (Sighting& member : members) {
    member.step_seconds = 30;
    member.step_age_seconds = 200;
  }
  members[0].step = 99;
  EXPECT_THAT(Healths(members), ElementsAre(kFine, kFine, kFine, kFine));
  members[0].step_age_seconds = 400;
  EXPECT_THAT(Healths(members), ElementsAre(kStopped, kFine, kFine, kFine));
}

TEST(VerdictTest, NobodyIsThere) { EXPECT_TRUE(Judge({}).empty()); }

}  // namespace
}  // namespace cohort::runtime::elastic
