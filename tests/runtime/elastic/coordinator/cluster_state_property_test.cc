// Random commands: what was made durable gives the same state, epochs never go back, who is behind is always refused,
// and nothing is done twice.
#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "runtime/elastic/coordinator/cluster_state.h"
#include "tests/runtime/elastic/coordinator/commands.h"

namespace cohort::cluster {
namespace {

const absl::Duration kTestLease = absl::Seconds(2);

class Commands {
 public:
  explicit Commands(uint64_t seed) : random_(seed) {}

  int Below(int n) { return static_cast<int>(random_() % static_cast<uint64_t>(n)); }
  std::string Name() { return absl::StrCat("member ", Below(6)); }
  std::string Text() { return absl::StrCat("text ", Below(3)); }

  v1::ClusterCommand Next(const ClusterState& state) {
    const uint64_t epoch = state.epoch().counted();
    int64_t id = Below(3);  // nobody's
    const v1::DescribeResponse described = state.Describe(0, absl::UnixEpoch());
    if (described.members_size() > 0 && Below(8) > 0)
      id = described.members(Below(described.members_size())).id();
    ++turns_;
    switch (Below(17)) {
      case 0:
      case 1:
        return Join(Name(), absl::StrCat("session ", Below(4)), Below(3) == 0 ? Below(5) : 0);
      case 2:
        return Leave(id);
      case 3:
        return AskToLeave(Name());
      case 4:
      case 5: {
        std::vector<std::string> members;
        for (int i = 0; i < 6; ++i) {
          if (Below(2) == 0) members.push_back(absl::StrCat("member ", i));
        }
        const uint64_t from = Below(4) == 0 ? Below(20) : epoch;
        return Advance(id, from, from + 1 + Below(2), members, Text());
      }
      case 6:
        return Post(Text(), Text(), Below(2) * id);
      case 7:
        return Withdraw(Text());
      case 8:
        return Answer(Text(), Text());
      case 9:
        return Put(absl::StrCat("launch ", Below(12)), Text(), Text());
      case 10:
        return Report(id, 1 + Below(9), static_cast<v1::EventKind>(18 + Below(12)), Below(2));
      case 11:
        return Begin();
      case 12:
      case 13:
        return Tick();
      case 15: {
        std::vector<std::string> half;
        const int first = Below(2) * 3;
        for (int i = first; i < first + 3 && Below(4) > 0; ++i) half.push_back(absl::StrCat("member ", i));
        return AskTie(id, epoch + static_cast<uint64_t>(Below(2)) - (epoch > 1 ? 1 : 0), half);
      }
      case 14: {
        // Of one who computes slower in some hundreds of turns, and is found.
        v1::ClusterCommand command = Renew(id);
        v1::StepReport& report = *command.mutable_renew()->mutable_report();
        report.set_step(20 + turns_ / 8);
        for (int64_t i = 0; i < 20; ++i) {
          const bool slow = id % 3 == 0 && (turns_ / 400) % 2 == 1;
          report.add_recent_compute_seconds(slow ? 3 : 1);
        }
        return command;
      }
      default:
        return Renew(id);
    }
  }

 private:
  std::mt19937_64 random_;
  int64_t turns_ = 0;
};

std::string Durable(const ClusterState& state) { return state.Snapshot().SerializeAsString(); }

class PropertyTest : public ::testing::TestWithParam<int> {};

TEST_P(PropertyTest, HoldsForRandomCommands) {
  Commands commands(GetParam());
  ClusterState state(kTestLease);
  absl::Time now = absl::FromUnixSeconds(1'800'000'000);
  std::vector<std::string> journal;
  v1::ClusterSnapshot base;  // what the journal begins from
  bool has_base = false;
  uint64_t epoch = 0, counted = 0;
  int changes = 0, refusals = 0, taken_over = 0;
  for (int turn = 0; turn < 3000; ++turn) {
    now += absl::Milliseconds(commands.Below(300));
    const v1::ClusterCommand command = commands.Next(state);
    const std::string before = Durable(state);
    Outcome outcome = state.Apply(command, now);
    const std::string after = Durable(state);
    SCOPED_TRACE(
        absl::StrCat("turn ", turn, ": ", command.ShortDebugString(), " -> ", outcome.status.ToString()));
    // Durable is what has a record, and only that.
    ASSERT_EQ(outcome.record.has_value(), before != after);
    ASSERT_TRUE(outcome.record.has_value() || outcome.events.empty());
    if (outcome.record.has_value()) {
      journal.push_back(outcome.record->SerializeAsString());
      ++changes;
    }
    refusals += absl::IsFailedPrecondition(outcome.status);
    // Epochs never go back, and go on only from the present one.
    ASSERT_GE(state.epoch().number(), epoch);
    if (state.epoch().number() > epoch) {
      if (command.has_tie()) {  // the other half has taken over
        ASSERT_EQ(state.epoch().number(), epoch + 1);
        ASSERT_EQ(command.tie().after(), state.epoch().counted());
        ++taken_over;
      } else {
        ASSERT_TRUE(command.has_advance_epoch());
        ASSERT_EQ(command.advance_epoch().from(), counted);
        ASSERT_EQ(command.advance_epoch().to(), state.epoch().counted());
        ASSERT_EQ(state.epoch().number() - epoch, state.epoch().counted() - counted);
      }
    }
    epoch = state.epoch().number();
    counted = state.epoch().counted();
    // Again: the same answer, and nothing more happens. (A coordinator begins anew each time.)
    if (!command.has_begin()) {
      const Outcome again = state.Apply(command, now);
      ASSERT_EQ(again.status.code(), outcome.status.code());
      ASSERT_FALSE(again.record.has_value());
      ASSERT_EQ(again.reply.index(), outcome.reply.index());
      if (const auto* joined = std::get_if<v1::JoinResponse>(&outcome.reply)) {
        ASSERT_EQ(std::get<v1::JoinResponse>(again.reply).member_id(), joined->member_id());
      }
      ASSERT_EQ(Durable(state), after);
    }
    // A side that is behind.
    const v1::DescribeResponse described = state.Describe(0, now);
    for (const v1::Member& member : described.members()) {
      if (turn % 10 != 0 || member.state() == v1::MEMBER_STATE_LEFT || epoch == 0) continue;
      ClusterState copy = state;
      const Outcome stale = copy.Apply(
          Advance(member.id(), counted - 1, counted + 5, {member.name(), "somebody"}, "stale"), now);
      ASSERT_EQ(stale.status.code(), absl::StatusCode::kFailedPrecondition);
      ASSERT_EQ(copy.epoch().SerializeAsString(), state.epoch().SerializeAsString());
      ASSERT_TRUE(stale.status.GetPayload(kEpochPayload).has_value());
    }
    if (turn % 97 == 0) {
      // A coordinator that reads the journal.
      ClusterState replayed(kTestLease);
      if (has_base) {
        auto restored = ClusterState::Restore(base, kTestLease);
        ASSERT_TRUE(restored.ok()) << restored.status();
        replayed = *std::move(restored);
      }
      for (const std::string& record : journal) {
        v1::ClusterCommand again;
        ASSERT_TRUE(again.ParseFromString(record));
        const Outcome done = replayed.Apply(again, absl::FromUnixMicros(again.time_micros()));
        ASSERT_TRUE(done.record.has_value()) << again.ShortDebugString();
      }
      ASSERT_EQ(Durable(replayed), after);
      // What is derived is the same too: it goes on as the first one would.
      ClusterState one = state, other = replayed;
      one.Apply(Begin(), now);
      other.Apply(Begin(), now);
      Commands more(turn);
      for (int i = 0; i < 60; ++i) {
        const v1::ClusterCommand next = more.Next(one);
        const absl::Time later = now + absl::Milliseconds(100 * i);
        const Outcome a = one.Apply(next, later), b = other.Apply(next, later);
        ASSERT_EQ(a.status, b.status) << next.ShortDebugString();
        if (const auto* renewed = std::get_if<v1::RenewResponse>(&a.reply)) {
          ASSERT_EQ(renewed->SerializeAsString(), std::get<v1::RenewResponse>(b.reply).SerializeAsString());
        }
      }
      ASSERT_EQ(Durable(one), Durable(other));
      if (turn % 194 == 0) {
        base = state.Snapshot();
        has_base = true;
        journal.clear();
      }
    }
  }
  EXPECT_GT(changes, 500);
  EXPECT_GT(refusals, 20);
  EXPECT_GT(epoch, 10u);
  RecordProperty("taken_over", taken_over);
}

INSTANTIATE_TEST_SUITE_P(Seeds, PropertyTest, ::testing::Range(1, 9));

}  // namespace
}  // namespace cohort::cluster
