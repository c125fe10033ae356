// Who counts: whatever any two ranks know at one epoch, no two sides have a quorum each.
#include "parallel/elastic/counted_members.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "comm/membership/quorum.h"

namespace cohort::parallel {
namespace {

using ::testing::ElementsAre;

constexpr int kAll = std::numeric_limits<int>::max();

TEST(CountedMembers, NewcomersCountWhenTheyHaveEntered) {
  CountedMembers founder = CountedMembers::OfFounder();
  EXPECT_THAT(founder.bounds(), ElementsAre(kAll));
  founder.Came(4);
  EXPECT_THAT(founder.bounds(), ElementsAre(4));
  founder.Came(6);
  founder.Hear(4);
  EXPECT_THAT(founder.bounds(), ElementsAre(4));
  founder.Enter();
  EXPECT_THAT(founder.bounds(), ElementsAre(4, kAll));
  founder.Entered();
  EXPECT_THAT(founder.bounds(), ElementsAre(kAll));
}

TEST(CountedMembers, AMeshThatIsNotEnteredChangesNothing) {
  CountedMembers counted = CountedMembers::OfFounder();
  counted.Came(4);
  counted.Enter();
  counted.Stay();
  EXPECT_THAT(counted.bounds(), ElementsAre(4));
  counted.Enter();
  counted.Came(7);  // entering failed; others came in the next edit
  EXPECT_THAT(counted.bounds(), ElementsAre(4, 7));
  counted.Enter();
  EXPECT_THAT(counted.bounds(), ElementsAre(4, 7, kAll));
}

TEST(CountedMembers, ANewcomerDecidesNothingUntilItKnows) {
  CountedMembers counted = CountedMembers::OfNewcomer();
  EXPECT_EQ(comm::ShareOf({0, 1, 2}, {0, 1, 2}, counted.bounds()), comm::Share::kLess);
  counted.Hear(2);
  EXPECT_EQ(comm::ShareOf({0, 1}, {0, 1, 2}, counted.bounds()), comm::Share::kMore);
  EXPECT_EQ(comm::ShareOf({1, 2}, {0, 1, 2}, counted.bounds()), comm::Share::kHalf);
  EXPECT_EQ(comm::ShareOf({2}, {0, 1, 2}, counted.bounds()), comm::Share::kLess);
}

// Random histories of one world. At each moment ranks are where the protocol lets them be: some have taken the step that all
// are about to take, others have not. Any cut of the members in two gives at most one side a quorum.
TEST(CountedMembers, NoTwoSidesHaveAQuorum) {
  std::mt19937 random(1);
  const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  for (int history = 0; history < 300; ++history) {
    const int founders = 1 + pick(5);
    std::vector<CountedMembers> ranks(static_cast<size_t>(founders), CountedMembers::OfFounder());
    int first_new = kAll;  // the lowest member that has not entered
    bool entering = false;
    for (int event = 0; event < 8; ++event) {
      std::vector<CountedMembers> after = ranks;
      switch (pick(3)) {
        case 0: {  // an edit, which all take part in
          const int first = static_cast<int>(ranks.size()), come = 1 + pick(3);
          for (CountedMembers& rank : after) rank.Came(first);
          after.resize(after.size() + static_cast<size_t>(come), CountedMembers::OfNewcomer());
          first_new = std::min(first_new, first);
          entering = false;  // whatever was under way; all begin it anew
          ranks = after;     // another epoch: what was said before it does not meet what is said now
          for (CountedMembers& rank : after) rank.Hear(first_new);  // not heard by all
          break;
        }
        case 1:
          for (CountedMembers& rank : after) rank.Enter();
          entering = true;
          break;
        case 2:
          if (!entering) continue;
          for (CountedMembers& rank : after) rank.Entered();
          entering = false;
          first_new = kAll;
          break;
      }
      std::vector<CountedMembers> mixed = ranks;
      for (size_t i = 0; i < mixed.size(); ++i) {
        if (pick(2) == 1) mixed[i] = after[i];
      }
      std::vector<int> members;
      for (int i = 0; i < static_cast<int>(mixed.size()); ++i) members.push_back(i);
      for (int cut = 0; cut < 200; ++cut) {
        std::set<int> sides[2];
        for (const int member : members) sides[pick(2)].insert(member);
        int with_quorum = 0;
        for (const std::set<int>& side : sides) {
          if (side.empty()) continue;
          const CountedMembers& leader = mixed[static_cast<size_t>(*side.begin())];
          const comm::Share share = comm::ShareOf(side, members, leader.bounds());
          with_quorum += share == comm::Share::kMore || (share == comm::Share::kHalf && side.contains(0));
        }
        ASSERT_LE(with_quorum, 1) << "history " << history << ", event " << event;
      }
      ranks = after;
    }
  }
}

}  // namespace
}  // namespace cohort::parallel
