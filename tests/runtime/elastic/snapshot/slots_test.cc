// The protocol of slots: every interleaving of three ranks, with a death at every point of each.
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
  explicit World(int slots = 2) { ranks.fill(Slots(slots)); }

  std::array<Slots, kRanks> ranks;
  std::array<int, kRanks> written = {};  // generations 1, 2, ... by now
  std::array<bool, kRanks> dead = {};
  int complete = 0;  // written by all

  std::string Key() const {
    std::string key;
    for (int r = 0; r < kRanks; ++r) {
      for (const Slots::Slot& slot : ranks[r].slots()) {
        absl::StrAppend(&key, static_cast<int>(slot.state), ":", slot.name.step, ":", slot.pins, " ");
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
  // `careless`: who takes for complete what is whole here alone. `reads`: the first rank may at any time begin or stop
  // to read what is whole there.
  explicit Explorer(bool careless, bool reads = false) : careless_(careless), reads_(reads) {}

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
      if (reads_ && r == 0 && !WalkReads(world, r)) return false;
    }
    return true;
  }
  size_t worlds() const { return seen_.size(); }
  // The latest generation that was complete in one of them.
  int furthest() const { return furthest_; }

 private:
  bool WalkReads(const World& world, int r) {
    for (const Slots::Slot& slot : world.ranks[r].slots()) {
      World next = world;
      if (slot.pins > 0) {
        next.ranks[r].Unpin(slot.name);
        if (!Walk(next)) return false;
        // Nobody writes over it meanwhile.
        next = world;
        if (next.ranks[r].Begin({1, world.written[r] + 1}).ok() && !next.ranks[r].Pin(slot.name))
          return false;
      } else if (slot.state == Slots::State::kWhole && Pins(world.ranks[r]) == 0) {
        EXPECT_TRUE(next.ranks[r].Pin(slot.name));
        if (!Walk(next)) return false;
      }
    }
    return true;
  }
  static int Pins(const Slots& slots) {
    int pins = 0;
    for (const Slots::Slot& slot : slots.slots()) pins += slot.pins;
    return pins;
  }
  static bool IsWriting(const Slots& slots) {
    for (const Slots::Slot& slot : slots.slots()) {
      if (slot.state == Slots::State::kWriting) return true;
    }
    return false;
  }
  const bool careless_, reads_;
  int furthest_ = 0;
  std::set<std::string> seen_;
};

TEST(Slots, WhoeverDiesWhenThereIsAWholeGeneration) {
  for (const int slots : {2, 3, 4}) {
    Explorer explorer(/*careless=*/false);
    EXPECT_TRUE(explorer.Walk(World(slots))) << slots;
    EXPECT_EQ(explorer.furthest(), kGenerations);
    EXPECT_GT(explorer.worlds(), 3'000u);
  }
}

TEST(Slots, LikewiseWhereGenerationsAreRead) {
  Explorer explorer(/*careless=*/false, /*reads=*/true);
  EXPECT_TRUE(explorer.Walk(World(3)));
  EXPECT_EQ(explorer.furthest(), kGenerations);
}

TEST(Slots, TheWalkFindsWhoDoesNotWaitForTheOthers) {
  EXPECT_FALSE(Explorer(/*careless=*/true).Walk(World(2)));
  EXPECT_FALSE(Explorer(/*careless=*/true).Walk(World(3)));
}

// One is complete, one waits for its parity, one is copied, and one is written to the disk for as long as that takes:
// there is a slot for each step's generation.
TEST(Slots, FourDoForParityAndADisk) {
  Slots slots(4);
  for (int64_t step = 1; step <= 20; ++step) {
    const auto slot = slots.Begin({1, step});
    ASSERT_TRUE(slot.ok()) << slot.status();
    slots.Written();
    if (step > 1) slots.Complete({1, step - 1});
    if (step == 5) {
      ASSERT_TRUE(slots.Pin({1, 5}));
    }
    if (step == 12) {
      slots.Unpin({1, 5});
      ASSERT_TRUE(slots.Pin({1, 12}));
    }
  }
  EXPECT_TRUE(slots.Pin({1, 12}));
  EXPECT_FALSE(slots.Pin({1, 5}));
}

TEST(Slots, WhatIsPinnedStays) {
  Slots slots;
  (void)*slots.Begin({1, 1});
  EXPECT_FALSE(slots.Pin({1, 1})) << "it is not whole";
  slots.Written();
  slots.Complete({1, 1});
  ASSERT_TRUE(slots.Pin({1, 1}));
  ASSERT_TRUE(slots.Pin({1, 1}));
  EXPECT_EQ(*slots.Begin({1, 2}), 1);
  slots.Written();
  slots.Complete({1, 2});
  slots.Unpin({1, 1});
  const absl::Status full = slots.Begin({1, 3}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(full));
  EXPECT_EQ(
      full.message(),
      "snapshot of step 3 of epoch 1: no slot is free: step 1 of epoch 1 (is being read), step 2 of epoch 1 "
      "(complete)");
  slots.Unpin({1, 1});
  EXPECT_EQ(*slots.Begin({1, 3}), 0);
}

TEST(Slots, SlotsAlternate) {
  Slots slots;
  EXPECT_EQ(*slots.Begin({1, 10}), 0);
  slots.Written();
  EXPECT_EQ(*slots.Begin({1, 11}), 1);
  EXPECT_TRUE(absl::IsFailedPrecondition(slots.Begin({1, 12}).status())) << "11 is not finished";
  EXPECT_EQ(slots.newest()->step, 10);
  slots.Written();
  EXPECT_EQ(slots.newest()->step, 11);
  EXPECT_TRUE(absl::IsFailedPrecondition(slots.Begin({1, 12}).status())) << "neither may be whole elsewhere";
  slots.Complete({1, 10});
  EXPECT_EQ(slots.complete()->step, 10);
  EXPECT_TRUE(absl::IsFailedPrecondition(slots.Begin({1, 12}).status())) << "11 may not be whole elsewhere";
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
