// The two-slot protocol: every interleaving of three ranks, with a death at every point of each.
#include "runtime/elastic/snapshot/slots.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace cohort::runtime::elastic {
namespace {

constexpr int kRanks = 3;
constexpr int kGenerations = 4;

// All ranks at one moment. A rank takes up its next generation, finishes it, hears that one is complete, or dies; each
// at any time.
struct World {
  std::array<Slots, kRanks> ranks;
  std::array<int, kRanks> written = {};  // generations 1, 2, ... by now
  std::array<bool, kRanks> dead = {};
  int complete = 0;  // written by all

  std::string Key() const {
    std::string key;
    for (int r = 0; r < kRanks; ++r) {
      for (const Slots::Slot& slot : ranks[r].slots()) {
        absl::StrAppend(&key, static_cast<int>(slot.state), ":", slot.name.step, " ");
      }
      absl::StrAppend(&key, ranks[r].complete() ? ranks[r].complete()->step : 0, dead[r] ? "d" : "l", "; ");
    }
    return key;
  }
};

std::set<int64_t> Whole(const Slots& slots) {
  std::set<int64_t> whole;
  for (const Slots::Slot& slot : slots.slots()) {
    if (slot.state == Slots::State::kWhole) whole.insert(slot.name.step);
  }
  return whole;
}

// The newest generation that every slot pair holds, dead or alive: what a recovery finds. -1: none.
int64_t Common(const World& world) {
  std::set<int64_t> common = Whole(world.ranks[0]);
  for (const Slots& slots : world.ranks) {
    std::set<int64_t> both;
    for (const int64_t step : Whole(slots)) {
      if (common.count(step)) both.insert(step);
    }
    common = both;
  }
  return common.empty() ? -1 : *common.rbegin();
}

class Explorer {
 public:
  explicit Explorer(bool careless) : careless_(careless) {}

  // Walks all worlds that can come of this one. Whether all hold what they must.
  bool Walk(const World& world) {
    if (!seen_.insert(world.Key()).second) return true;
    furthest_ = std::max(furthest_, world.complete);
    // From the first complete generation on, the newest complete one is whole everywhere, at every point.
    if (world.complete > 0 && Common(world) < world.complete) return false;
    for (int r = 0; r < kRanks; ++r) {
      if (world.dead[r]) continue;
      World next = world;
      next.dead[r] = true;
      if (!Walk(next)) return false;

      next = world;
      if (careless_ && next.ranks[r].newest()) next.ranks[r].Complete(*next.ranks[r].newest());
      if (world.written[r] < kGenerations && next.ranks[r].Begin({1, world.written[r] + 1}).ok()) {
        if (!Walk(next)) return false;
      }
      next = world;
      if (IsWriting(world.ranks[r])) {
        next.ranks[r].Written();
        ++next.written[r];
        next.complete = *std::min_element(next.written.begin(), next.written.end());
        if (!Walk(next)) return false;
        next = world;
        next.ranks[r].Abandon();
        if (!Walk(next)) return false;
      }
      // News come late, and old news may come too.
      for (int step = 1; step <= world.complete; ++step) {
        next = world;
        next.ranks[r].Complete({1, step});
        if (!Walk(next)) return false;
      }
    }
    return true;
  }
  size_t worlds() const { return seen_.size(); }
  // The latest generation that was complete in one of them.
  int furthest() const { return furthest_; }

 private:
  static bool IsWriting(const Slots& slots) {
    for (const Slots::Slot& slot : slots.slots()) {
      if (slot.state == Slots::State::kWriting) return true;
    }
    return false;
  }
  bool careless_;
  int furthest_ = 0;
  std::set<std::string> seen_;
};

TEST(Slots, WhoeverDiesWhenThereIsAWholeGeneration) {
  Explorer explorer(/*careless=*/false);
  EXPECT_TRUE(explorer.Walk({}));
  EXPECT_EQ(explorer.furthest(), kGenerations);
  EXPECT_GT(explorer.worlds(), 3'000u);
}

TEST(Slots, TheWalkFindsWhoDoesNotWaitForTheOthers) { EXPECT_FALSE(Explorer(/*careless=*/true).Walk({})); }

TEST(Slots, SlotsAlternate) {
  Slots slots;
  EXPECT_EQ(*slots.Begin({1, 10}), 0);
  slots.Written();
  EXPECT_TRUE(absl::IsFailedPrecondition(slots.Begin({1, 11}).status())) << "10 may not be whole elsewhere";
  slots.Complete({1, 10});
  EXPECT_EQ(*slots.Begin({1, 11}), 1);
  EXPECT_TRUE(absl::IsFailedPrecondition(slots.Begin({1, 12}).status())) << "11 is not finished";
  EXPECT_EQ(slots.newest()->step, 10);
  slots.Written();
  EXPECT_EQ(slots.newest()->step, 11);
  EXPECT_EQ(slots.complete()->step, 10);
  slots.Complete({1, 11});
  EXPECT_TRUE(absl::IsFailedPrecondition(slots.Begin({1, 11}).status())) << "no later";
  EXPECT_EQ(*slots.Begin({1, 12}), 0);
}

TEST(Slots, WhatWasAbandonedIsWrittenAgain) {
  Slots slots;
  (void)*slots.Begin({1, 1});
  slots.Written();
  slots.Complete({1, 1});
  EXPECT_EQ(*slots.Begin({1, 2}), 1);
  slots.Abandon();
  EXPECT_EQ(slots.newest()->step, 1);
  EXPECT_EQ(*slots.Begin({1, 2}), 1);
}

TEST(Slots, NewsOfWhatIsNotHereChangeNothing) {
  Slots slots;
  slots.Complete({1, 5});
  EXPECT_FALSE(slots.complete());
  (void)*slots.Begin({1, 1});
  slots.Complete({1, 1});
  EXPECT_FALSE(slots.complete()) << "it is not written here";
}

TEST(Slots, ALaterEpochIsLater) {
  EXPECT_LT((GenerationName{1, 10}), (GenerationName{2, 3}));
  EXPECT_LT((GenerationName{1, 10}), (GenerationName{1, 11}));
}

}  // namespace
}  // namespace cohort::runtime::elastic
