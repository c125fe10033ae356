// Which way messages take, from what they are said to take. Bytes and ticks are made up; nothing is measured.
#include "comm/transport/shm/body_way.h"
#include "comm/transport/shm/policy.h"

#include <gtest/gtest.h>

namespace cohort::comm::shm {
namespace {

constexpr size_t kBytes = 32 << 10;
const OpenWays kRingAndRead = OpenWays().Add(Way::kCopied).Add(Way::kRead);
const OpenWays kEveryWay = OpenWays().Add(Way::kCopied).Add(Way::kRead).Add(Way::kLent);
const OpenWays kLarge = OpenWays().Add(Way::kRead).Add(Way::kLent);

// A pair of ranks whose messages take so long by each way.
class Pair {
 public:
  explicit Pair(OpenWays open = kRingAndRead) : open_(open) {}
  int64_t copied_in = 1000, copied_out = 1000, read = 1000, lend = 200, lent = 800;

  // The share of the next `messages` that take that way.
  double Share(Way way, int messages, size_t bytes = kBytes) {
    int number = 0;
    for (int i = 0; i < messages; ++i) number += Message(bytes) == way;
    return static_cast<double>(number) / messages;
  }
  double Read(int messages, size_t bytes = kBytes) { return Share(Way::kRead, messages, bytes); }
  void Open(OpenWays open) { open_ = open; }

 private:
  Way Message(size_t bytes) {
    const Way way = way_.Next(bytes, open_, taken_);
    switch (way) {
      case Way::kCopied:
        way_.NoteSent(bytes, way, copied_in);
        notes_.Note(bytes, way, copied_out, taken_);
        break;
      case Way::kRead:
        notes_.Note(bytes, way, read, taken_);
        break;
      case Way::kLent:
        way_.NoteSent(bytes, way, lend);
        notes_.Note(bytes, way, lent, taken_);
        break;
    }
    return way;
  }

  OpenWays open_;
  BodyWay way_;
  TakenNotes notes_;
  TakenTicks taken_ = {};
};

TEST(BodyWay, SizesHaveWays) {
  EXPECT_FALSE(HasWays(policy::kShmCopiedBytes));
  EXPECT_TRUE(HasWays(policy::kShmCopiedBytes + 1));
  EXPECT_EQ(WaySize(policy::kShmCopiedBytes + 1), 0u);
  EXPECT_EQ(WaySize(policy::kShmLentBytes), kWaySizes - 2);
  EXPECT_EQ(WaySize(policy::kShmLentBytes + 1), kWaySizes - 1);
  EXPECT_EQ(WaySize(64 * policy::kShmLentBytes), kWaySizes - 1);
  EXPECT_NE(WaySize(16 << 10), WaySize((16 << 10) + 1));
}

TEST(BodyWay, MessagesOfASizeAreComparedAsIfAllWereAsLong) {
  EXPECT_EQ(WholeTicks(32 << 10, 1000), 1000);
  EXPECT_EQ(WholeTicks(24 << 10, 750), 1000);
  EXPECT_EQ(WholeTicks(4 * policy::kShmLentBytes, 4000), 1000);
}

TEST(BodyWay, TheFirstGoThroughTheRing) { EXPECT_EQ(Pair().Read(policy::kShmTrialMessages), 0); }

TEST(BodyWay, TheFirstLargeOnesAreLentWhereThatIsOpen) {
  EXPECT_EQ(Pair(kLarge).Share(Way::kLent, policy::kShmTrialMessages, 1 << 20), 1);
  EXPECT_EQ(Pair(OpenWays().Add(Way::kRead)).Read(100, 1 << 20), 1);
}

TEST(BodyWay, EveryWayIsTriedAndTheFastestKept) {
  Pair lending(kEveryWay);
  lending.read = 1500;
  lending.Read(30);
  EXPECT_GT(lending.Share(Way::kLent, 1000), 0.9);
  Pair reading(kEveryWay);
  reading.read = 700;
  reading.Read(30);
  EXPECT_GT(reading.Share(Way::kRead, 1000), 0.8);
  Pair copying(kEveryWay);
  copying.read = 4000;
  copying.lent = 5000;
  copying.Read(30);
  EXPECT_GT(copying.Share(Way::kCopied, 1000), 0.9);
}

TEST(BodyWay, WhatLendingTakesItsSenderCounts) {
  Pair pair(kLarge);
  pair.lent = 800;
  pair.lend = 1000;
  pair.Read(30, 1 << 20);
  EXPECT_GT(pair.Read(1000, 1 << 20), 0.9);
}

TEST(BodyWay, AWayThatIsOpenNoMoreIsNotTaken) {
  Pair pair(kEveryWay);
  pair.lent = 100;
  pair.Read(1000);
  pair.Open(kRingAndRead);
  EXPECT_EQ(pair.Share(Way::kLent, 1000), 0);
  pair.Open(kLarge);
  EXPECT_EQ(pair.Share(Way::kCopied, 1000), 0);
}

TEST(BodyWay, TheFasterWayIsFoundAndKept) {
  Pair reading;
  reading.read = 1500;  // of 2000
  reading.Read(20);
  EXPECT_GT(reading.Read(1000), 0.9);
  Pair copying;
  copying.read = 4000;
  copying.Read(20);
  EXPECT_LT(copying.Read(1000), 0.1);
}

TEST(BodyWay, SizesAreMeasuredByThemselves) {
  Pair pair;
  pair.read = 500;
  pair.Read(100);
  EXPECT_EQ(pair.Read(policy::kShmTrialMessages, 8 << 10), 0);  // begins anew
}

TEST(BodyWay, AChangeIsNoticed) {
  Pair pair;
  pair.read = 3000;  // 1.5 times as long as the ring
  pair.Read(1000);
  pair.read = 500;  // its caches hold now what is sent
  pair.Read(2 * static_cast<int>(policy::kShmTrialPause * 1.5 * 1.5));
  EXPECT_GT(pair.Read(1000), 0.9);
  pair.read = 9000;  // and no more
  pair.Read(100);
  EXPECT_LT(pair.Read(1000), 0.1);
}

TEST(BodyWay, WhatIsAboutAsFastStays) {
  Pair pair;
  pair.read = 1900;
  pair.Read(100);
  EXPECT_LT(pair.Read(1000), 0.1);
}

TEST(BodyWay, OneThatWasHeldUpDoesNotCount) {
  Pair pair;
  pair.read = 1000;
  pair.Read(200);
  pair.read = 100'000;  // its thread had lost the processor
  pair.Read(1);
  pair.read = 1000;
  EXPECT_GT(pair.Read(60), 0.9);
}

// Receives that are always late, which say nothing of what is copied; and pages that are never lent, though the way is open.
TEST(BodyWay, WhatIsNeverKnownIsNotTriedForEver) {
  const auto share = [](OpenWays open, Way silent, Way used, size_t bytes) {
    BodyWay way;
    TakenNotes notes;
    TakenTicks taken = {};
    int number = 0;
    for (int i = 0; i < 10'000; ++i) {
      const Way next = way.Next(bytes, open, taken);
      number += next == used;
      if (next == Way::kCopied) way.NoteSent(bytes, next, 1000);
      if (next != silent) notes.Note(bytes, next, next == Way::kCopied ? 1000 : 20'000, taken);
      if (next == silent && silent == Way::kLent) notes.Note(bytes, Way::kRead, 20'000, taken);
    }
    return number / 10'000.0;
  };
  EXPECT_GT(share(kEveryWay, Way::kCopied, Way::kCopied, kBytes), 0.99);
  EXPECT_GT(share(kEveryWay, Way::kLent, Way::kCopied, kBytes), 0.9);
  EXPECT_GT(share(kLarge, Way::kLent, Way::kRead, 1 << 20), 0.9);
}

// The slower the other way, the rarer it is tried: what trials cost stays small.
TEST(BodyWay, TrialsCostLittle) {
  for (const int64_t read : {2'200, 3'000, 4'000, 10'000, 100'000}) {
    Pair pair;
    pair.read = read;
    pair.Read(1000);
    const int messages = 100'000;
    const double tried = pair.Read(messages);
    EXPECT_GT(tried, 0) << read;
    EXPECT_LT(tried * static_cast<double>(read - 2000) / 2000, 0.02) << read;
  }
}

}  // namespace
}  // namespace cohort::comm::shm
