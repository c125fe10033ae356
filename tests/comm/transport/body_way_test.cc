// Which way middling messages take, from what they are said to take. Bytes and ticks are made up; nothing is measured.
#include "comm/transport/shm/body_way.h"

#include <gtest/gtest.h>

namespace cohort::comm::shm {
namespace {

constexpr size_t kBytes = 32 << 10;

// A pair of ranks whose messages take so long by either way.
class Pair {
 public:
  int64_t copied_in = 1000, copied_out = 1000, read = 1000;

  // The share of the next `messages` that are read.
  double Read(int messages, size_t bytes = kBytes) {
    int reads = 0;
    for (int i = 0; i < messages; ++i) {
      if (way_.Reads(bytes, taken_)) {
        ++reads;
        notes_.NoteRead(bytes, read, taken_);
      } else {
        way_.NoteCopiedIn(bytes, copied_in);
        notes_.NoteCopied(bytes, copied_out, taken_);
      }
    }
    return static_cast<double>(reads) / messages;
  }

 private:
  BodyWay way_;
  TakenNotes notes_;
  TakenTicks taken_ = {};
};

TEST(BodyWay, SizesBetweenTheLimitsHaveWays) {
  EXPECT_FALSE(HasWays(policy::kShmCopiedBytes));
  EXPECT_TRUE(HasWays(policy::kShmCopiedBytes + 1));
  EXPECT_TRUE(HasWays(policy::kShmEagerBytes));
  EXPECT_FALSE(HasWays(policy::kShmEagerBytes + 1));
  EXPECT_EQ(WaySize(policy::kShmCopiedBytes + 1), 0u);
  EXPECT_EQ(WaySize(policy::kShmEagerBytes), kWaySizes - 1);
  EXPECT_NE(WaySize(16 << 10), WaySize((16 << 10) + 1));
}

TEST(BodyWay, TheFirstGoThroughTheRing) { EXPECT_EQ(Pair().Read(policy::kShmTrialMessages), 0); }

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
