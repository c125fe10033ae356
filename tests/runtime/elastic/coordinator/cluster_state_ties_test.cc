// Which of two halves goes on, over deaths, restarts and comebacks.
#include <gmock/gmock.h>

#include "runtime/elastic/coordinator/policy.h"
#include "tests/runtime/elastic/coordinator/cluster_state_fixture.h"

namespace cohort::cluster {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<std::string> kFirst = {"a", "b"}, kOther = {"c", "d"};

struct TiesTest : ClusterStateTest {
  TiesTest() : a(JoinAs("a")), b(JoinAs("b")), c(JoinAs("c")), d(JoinAs("d")) {
    Do(Advance(a, 0, 5, {"a", "b", "c", "d"}, "four"));
    Pass(absl::Seconds(1), {a, b, c, d});
  }
  v1::TieState Ask(int64_t id, const std::vector<std::string>& half, uint64_t after = 5) {
    const Outcome outcome = Do(AskTie(id, after, half));
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    if (!outcome.status.ok()) return v1::TIE_STATE_UNSPECIFIED;
    words = std::get<v1::TieResponse>(outcome.reply).words();
    return std::get<v1::TieResponse>(outcome.reply).state();
  }
  // The state as another coordinator has it that begins now.
  void Restart() {
    state = *ClusterState::Restore(state.Snapshot(), absl::Seconds(2));
    Do(Begin());
  }

  int64_t a, b, c, d;
  std::string words;
};

TEST_F(TiesTest, TheFirstGoesOnHoweverOftenBothAsk) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Ask(a, kFirst), v1::TIE_STATE_WON);
    EXPECT_EQ(Ask(b, {}), v1::TIE_STATE_WON);
  }
  EXPECT_EQ(Ask(c, {}), v1::TIE_STATE_LOST);
  EXPECT_EQ(Ask(c, {"c", "a"}), v1::TIE_STATE_LOST);
  EXPECT_EQ(Ask(a, {"a", "c"}), v1::TIE_STATE_LOST);
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_PENDING);
  EXPECT_EQ(Ask(d, {}), v1::TIE_STATE_PENDING);
  EXPECT_TRUE(RenewAs(a).leased());
  EXPECT_FALSE(RenewAs(c).leased());
  // The holder is heard: the other half gives up, and nobody is bound any more.
  Pass(absl::Seconds(1), {a, b, c, d});
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_LOST);
  EXPECT_THAT(words, HasSubstr("a, b go on"));
  EXPECT_FALSE(RenewAs(a).leased());
  Pass(absl::Seconds(20), {c, d});
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_LOST);
}

TEST_F(TiesTest, TheOtherTakesOverWhereNoneOfTheFirstHoldsALease) {
  EXPECT_EQ(Ask(a, kFirst), v1::TIE_STATE_WON);
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_PENDING);
  const absl::Time begin = now;
  while (Ask(d, {}) == v1::TIE_STATE_PENDING && now < begin + absl::Seconds(20)) {
    EXPECT_EQ(state.epoch().number(), 5u);
    Pass(absl::Milliseconds(100), {c, d});
  }
  // Their leases, and one more.
  EXPECT_GE(now - begin, absl::Seconds(4));
  EXPECT_LE(now - begin, absl::Milliseconds(4500));
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_WON);
  EXPECT_EQ(state.epoch().number(), 6u);
  EXPECT_EQ(state.epoch().counted(), 5u);
  EXPECT_THAT(state.epoch().members(), ElementsAre("c", "d"));
  EXPECT_TRUE(RenewAs(c).in_epoch());
  EXPECT_FALSE(RenewAs(c).leased());
  // The first half was only cut off. It hears that it is out before it can go on, and nothing of it counts.
  EXPECT_TRUE(RenewAs(a).evicted());
  EXPECT_TRUE(RenewAs(b).evicted());
  EXPECT_EQ(Do(Advance(a, 5, 6, kFirst)).status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Ask(a, kFirst), v1::TIE_STATE_LOST);
  EXPECT_EQ(Ask(b, {}), v1::TIE_STATE_LOST);
  // The members number on by themselves.
  EXPECT_TRUE(Do(Advance(d, 5, 6, kOther)).status.ok());
  EXPECT_EQ(state.epoch().number(), 7u);
  EXPECT_EQ(state.epoch().counted(), 6u);
  EXPECT_TRUE(Do(Advance(d, 5, 6, kOther)).status.ok());
  EXPECT_EQ(state.epoch().number(), 7u);
  EXPECT_TRUE(RenewAs(c).in_epoch());
  EXPECT_TRUE(RenewAs(a).evicted());
}

// Where it died after it had told its epochs, and had others in them.
TEST_F(TiesTest, TheOtherTakesOverFromLaterEpochs) {
  EXPECT_EQ(Ask(a, kFirst), v1::TIE_STATE_WON);
  Do(Advance(a, 5, 6, kFirst));
  const int64_t e = JoinAs("e");
  EXPECT_TRUE(RenewAs(e).leased());
  Do(Advance(a, 6, 9, {"a", "b", "e"}));
  EXPECT_TRUE(RenewAs(c).evicted());
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_PENDING);
  Pass(absl::Seconds(5), {c, d});
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_WON);
  EXPECT_EQ(state.epoch().number(), 10u);
  EXPECT_FALSE(RenewAs(c).evicted());
  for (const int64_t out : {a, b, e}) EXPECT_TRUE(RenewAs(out).evicted());
  EXPECT_EQ(Do(Advance(e, 9, 10, {"e"})).status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Do(Advance(c, 5, 6, kOther)).status.ok());
  EXPECT_EQ(state.epoch().number(), 11u);
}

// Whom the first half has taken in counts like its members.
TEST_F(TiesTest, ANewcomersLeaseCounts) {
  EXPECT_EQ(Ask(a, kFirst), v1::TIE_STATE_WON);
  Do(Advance(a, 5, 6, kFirst));
  const int64_t e = JoinAs("e");
  Do(Advance(a, 6, 7, {"a", "b", "e"}));
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_PENDING);
  Pass(absl::Seconds(6), {c, d, e});
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_LOST);
  EXPECT_EQ(state.epoch().number(), 7u);
}

// Nobody was first: others have gone on by more than half.
TEST_F(TiesTest, WhoIsBehindIsRefused) {
  Do(Advance(a, 5, 6, {"a", "b", "c"}));
  EXPECT_EQ(Ask(d, {"d"}), v1::TIE_STATE_LOST);
  EXPECT_THAT(words, HasSubstr("epoch 6"));
}

// Not yet told of an epoch: the tied one is the present one for the coordinator.
TEST_F(TiesTest, OneLeaseIsEnough) {
  EXPECT_EQ(Ask(a, kFirst), v1::TIE_STATE_WON);
  Pass(absl::Seconds(6), {b, c, d});
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_PENDING);
  Pass(absl::Seconds(1), {b, c, d});
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_LOST);
}

TEST_F(TiesTest, WhoWaitsOnTheBoardHasLeftItsGroup) {
  EXPECT_EQ(Ask(a, kFirst), v1::TIE_STATE_WON);
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_PENDING);
  Do(Post("card of b", "card", b));  // a died, and b had no quorum
  Pass(absl::Seconds(5), {b, c, d});
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_WON);
  EXPECT_TRUE(RenewAs(b).evicted());
}

TEST_F(TiesTest, ARestartGivesNothingAway) {
  EXPECT_EQ(Ask(a, kFirst), v1::TIE_STATE_WON);
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_PENDING);
  Pass(absl::Milliseconds(3900), {c, d});
  Restart();
  EXPECT_EQ(Ask(b, {}), v1::TIE_STATE_WON);
  // A whole lease to be heard again, and one more.
  Pass(absl::Milliseconds(3900), {c, d});
  EXPECT_EQ(Ask(d, {}), v1::TIE_STATE_PENDING);
  Pass(absl::Milliseconds(300), {c, d});
  EXPECT_EQ(Ask(d, {}), v1::TIE_STATE_WON);
  Restart();
  EXPECT_EQ(Ask(d, {}), v1::TIE_STATE_WON);
  EXPECT_TRUE(RenewAs(a).evicted());
}

// Time in which nobody could be heard counts against nobody, and for nobody.
TEST_F(TiesTest, TheCoordinatorsOwnAbsence) {
  EXPECT_EQ(Ask(a, kFirst), v1::TIE_STATE_WON);
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_PENDING);
  now += absl::Hours(1);
  Do(Tick());
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_PENDING);
  Pass(absl::Milliseconds(3500), {c, d});
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_PENDING);
  Pass(absl::Seconds(1), {c, d});
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_WON);
}

TEST_F(TiesTest, TheBondEndsInTime) {
  EXPECT_EQ(Ask(a, kFirst), v1::TIE_STATE_WON);
  Do(Advance(a, 5, 6, kFirst));
  Pass(policy::kTieOpen - absl::Seconds(1), {a, b});
  EXPECT_TRUE(RenewAs(a).leased());
  Pass(absl::Seconds(2), {a, b});
  EXPECT_FALSE(RenewAs(a).leased());
  EXPECT_THAT(Kinds(state.EventsFrom(0)), Contains("NOTE").Times(2));
  Pass(absl::Seconds(20));
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_LOST);
}

TEST_F(TiesTest, WhoIsNotKnownCannotBeBound) {
  EXPECT_EQ(Ask(a, {"a", "z"}), v1::TIE_STATE_PENDING);
  EXPECT_THAT(words, HasSubstr("z has not joined yet"));
  EXPECT_EQ(Ask(c, kOther), v1::TIE_STATE_WON);
  EXPECT_EQ(Do(AskTie(a, 5, {"b"})).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Do(AskTie(a, 0, kFirst)).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Do(AskTie(99, 5, kFirst)).status.code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace cohort::cluster
