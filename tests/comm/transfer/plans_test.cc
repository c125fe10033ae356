// What needs no second process: striping, counting, cards.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "comm/transfer/card.h"
#include "comm/transfer/imm_counter.h"
#include "comm/transfer/stripe.h"

namespace cohort::comm::transfer {
namespace {

TEST(Stripe, CoversEveryByteOnceOnDifferentRails) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 20'000; ++round) {
    std::vector<int> rails(1 + random() % 5);
    for (size_t i = 0; i < rails.size(); ++i) rails[i] = static_cast<int>(3 * i + 1);
    const uint64_t bytes = random() >> (1 + random() % 63);
    const uint64_t least = 1 + random() % 100'000;
    const std::vector<Shard> shards = Stripe(bytes, rails, least, random() % 9);
    ASSERT_FALSE(shards.empty());
    ASSERT_LE(shards.size(), rails.size());
    uint64_t at = 0;
    std::vector<int> used;
    for (const Shard& shard : shards) {
      EXPECT_EQ(shard.begin, at);
      EXPECT_TRUE(shard.begin < shard.end || bytes == 0);
      EXPECT_EQ(shard.begin % 64, 0u);
      // Equal but for the alignment, and none too small.
      if (shards.size() > 1) {
        EXPECT_GE(shard.end - shard.begin + 64, std::max(least, bytes / shards.size()));
      }
      EXPECT_EQ(std::count(used.begin(), used.end(), shard.rail), 0);
      EXPECT_EQ(std::count(rails.begin(), rails.end(), shard.rail), 1);
      used.push_back(shard.rail);
      at = shard.end;
    }
    EXPECT_EQ(at, bytes);
    if (bytes / least >= rails.size() && bytes >= 64 * rails.size()) {
      EXPECT_EQ(shards.size(), rails.size());
    }
    if (bytes < 2 * least) {
      EXPECT_EQ(shards.size(), 1u);
    }
  }
}

TEST(Stripe, SmallWritesTakeTurns) {
  for (uint64_t turn = 0; turn < 6; ++turn) {
    EXPECT_EQ(Stripe(100, {4, 5, 6}, 8192, turn),
              (std::vector<Shard>{{static_cast<int>(4 + turn % 3), 0, 100}}));
  }
}

TEST(ImmCounter, TakesOffWhatWasExpectedInOrder) {
  ImmCounter counter;
  EXPECT_EQ(counter.Add(5), std::nullopt);
  EXPECT_EQ(counter.Add(5), std::nullopt);
  EXPECT_EQ(counter.Add(6), std::nullopt);
  EXPECT_EQ(counter.Count(5), 2u);
  EXPECT_TRUE(counter.Expect(5, 1, 100));
  EXPECT_EQ(counter.Count(5), 1u);
  EXPECT_FALSE(counter.Expect(5, 3, 101));
  EXPECT_FALSE(counter.Expect(5, 1, 102));  // behind it, although one is there
  EXPECT_EQ(counter.Add(5), std::nullopt);
  EXPECT_EQ(counter.Add(5), std::optional<uint64_t>(101));
  EXPECT_EQ(counter.Add(5), std::optional<uint64_t>(102));
  EXPECT_EQ(counter.Count(5), 0u);
  EXPECT_EQ(counter.Count(6), 1u);
}

TEST(ImmCounter, CancelledExpectationsLetOthersPass) {
  ImmCounter counter;
  EXPECT_FALSE(counter.Expect(1, 3, 10));
  EXPECT_FALSE(counter.Expect(1, 1, 11));
  EXPECT_FALSE(counter.Expect(1, 1, 12));
  EXPECT_EQ(counter.Add(1), std::nullopt);
  EXPECT_EQ(counter.Add(1), std::nullopt);
  EXPECT_EQ(counter.Cancel(1, 10), std::optional<uint64_t>(11));
  EXPECT_EQ(counter.Cancel(1, 10), std::optional<uint64_t>(12));
  EXPECT_EQ(counter.Cancel(1, 10), std::nullopt);
  EXPECT_EQ(counter.Count(1), 0u);
}

TEST(Card, ComesBackFromText) {
  const Card card{.engine = 1ull << 63 | 2,
                  .name = "a name with spaces",
                  .host = "host",
                  .local = "",
                  .rails = {std::string("\0\1\2", 3), "second"}};
  const auto back = Card::FromText(card.ToText());
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->engine, card.engine);
  EXPECT_EQ(back->name, card.name);
  EXPECT_EQ(back->local, card.local);
  EXPECT_EQ(back->rails, card.rails);
}

TEST(Card, BrokenTextIsRefused) {
  const std::string good =
      Card{.engine = 77, .name = "n", .host = "h", .local = "l", .rails = {"r"}}.ToText();
  ASSERT_TRUE(Card::FromText(good).ok());
  for (const std::string& bad :
       {std::string(), std::string("cohort-transfer-1"), "x" + good, good + " ", good + " %%%",
        good.substr(0, 25), good.substr(0, good.rfind(' ')),
        std::string("cohort-transfer-1 x bg== aA== bA== cg=="),
        std::string("cohort-transfer-1 0 bg== aA== bA== cg=="), std::string(1 << 20, ' ')}) {
    const auto card = Card::FromText(bad);
    EXPECT_EQ(card.status().code(), absl::StatusCode::kInvalidArgument) << bad.substr(0, 80);
  }
}

}  // namespace
}  // namespace cohort::comm::transfer
