// What needs no second process: striping, counting, cards.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <random>

#include "comm/transfer/answer_habit.h"
#include "comm/transfer/card.h"
#include "comm/transfer/imm_counter.h"
#include "comm/transfer/policy.h"
#include "comm/transfer/ring.h"
#include "comm/transfer/stripe.h"
#include "comm/transport/ucx/interfaces.h"

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
  int first = 0, second = 0;
  EXPECT_EQ(counter.Add(5), nullptr);
  EXPECT_EQ(counter.Add(5), nullptr);
  EXPECT_EQ(counter.Add(6), nullptr);
  EXPECT_EQ(counter.Count(5), 2u);
  EXPECT_TRUE(counter.Take(5, 1));
  EXPECT_EQ(counter.Count(5), 1u);
  EXPECT_FALSE(counter.Take(5, 3));
  counter.Expect(5, 3, &first);
  EXPECT_FALSE(counter.Take(5, 1));  // behind it, although one is there
  counter.Expect(5, 1, &second);
  EXPECT_EQ(counter.Add(5), nullptr);
  EXPECT_EQ(counter.Add(5), &first);
  EXPECT_EQ(counter.Add(5), &second);
  EXPECT_EQ(counter.Count(5), 0u);
  EXPECT_EQ(counter.Count(6), 1u);
}

TEST(ImmCounter, CancelledExpectationsLetOthersPass) {
  ImmCounter counter;
  int waiting[3] = {};
  counter.Expect(1, 3, &waiting[0]);
  counter.Expect(1, 1, &waiting[1]);
  counter.Expect(1, 1, &waiting[2]);
  EXPECT_EQ(counter.Add(1), nullptr);
  EXPECT_EQ(counter.Add(1), nullptr);
  EXPECT_EQ(counter.Cancel(1, &waiting[0]), &waiting[1]);
  EXPECT_EQ(counter.Serve(1), &waiting[2]);
  EXPECT_EQ(counter.Serve(1), nullptr);
  EXPECT_EQ(counter.Count(1), 0u);
}

// As a plain map and list would, also with more numbers than are kept and longer queues than are moved at once.
TEST(ImmCounter, AsAPlainListOfExpectations) {
  std::mt19937 random(3);
  ImmCounter counter;
  std::map<uint32_t, uint64_t> counts;
  std::map<uint32_t, std::deque<std::pair<uint64_t, uint64_t>>> queues;  // who, how many
  uint64_t next = 1;
  for (int step = 0; step < 200'000; ++step) {
    const uint32_t number = random() % (step % 3 == 0 ? 5000 : 3);
    auto& queue = queues[number];
    if (random() % 2 == 0) {
      const uint64_t count = 1 + random() % 2;
      const bool taken = queue.empty() && counts[number] >= count;
      ASSERT_EQ(counter.Take(number, count), taken);
      if (taken) {
        counts[number] -= count;
      } else {
        queue.emplace_back(next, count);
        counter.Expect(number, count, reinterpret_cast<void*>(next++));
      }
    } else {
      ++counts[number];
      uint64_t served = 0;
      if (!queue.empty() && counts[number] >= queue.front().second) {
        served = queue.front().first;
        counts[number] -= queue.front().second;
        queue.pop_front();
      }
      ASSERT_EQ(counter.Add(number), reinterpret_cast<void*>(served));
    }
    ASSERT_EQ(counter.Count(number), counts[number]);
  }
}

TEST(Lines, NumbersAreMadeWholeFromTheirLowHalves) {
  for (const uint64_t near :
       {uint64_t{1}, uint64_t{0xfffffff0}, uint64_t{0x100000000}, uint64_t{0x7'80000000}}) {
    for (int64_t distance = -1; distance <= 300; ++distance) {
      const uint64_t whole = near + static_cast<uint64_t>(distance);
      EXPECT_EQ(Whole(static_cast<uint32_t>(whole), near), whole);
    }
  }
}

// Payloads of all sizes through a ring that is full most of the time; the consumer gives back late.
TEST(Lines, ArriveInOrderWithWhatTheyCarry) {
  const auto ring = std::make_unique<Ring>();
  RingProducer producer(ring.get());
  RingConsumer consumer(ring.get());
  std::mt19937 random(5);
  std::deque<std::vector<std::byte>> inside;
  int sent = 0, taken = 0;
  while (taken < 20'000) {
    std::vector<std::byte> data(random() % 4 == 0 ? random() % policy::kTransferRingFrameBytes
                                                  : random() % 40);
    for (std::byte& one : data) one = static_cast<std::byte>(random());
    std::byte* to = nullptr;
    if (Line* line = producer.Reserve(data.size(), &to); line != nullptr) {
      if (!data.empty()) std::memcpy(to, data.data(), data.size());
      line->op = static_cast<uint32_t>(sent++);
      producer.Commit(line);
      inside.push_back(std::move(data));
    } else {
      ASSERT_FALSE(inside.empty());  // what is empty has room
    }
    for (size_t most = inside.size() > 3 ? random() % 4 : 0; most > 0; --most) {
      const std::byte* payload = nullptr;
      const Line* line = consumer.Peek(&payload);
      ASSERT_NE(line, nullptr);
      EXPECT_EQ(line->op, static_cast<uint32_t>(taken++));
      ASSERT_EQ(line->bytes, inside.front().size());
      ASSERT_TRUE(std::equal(inside.front().begin(), inside.front().end(), payload));
      inside.pop_front();
      consumer.Release();
    }
  }
}

// Word and answer in turn, `times` times, an answer `late` after its word; the moment after the last.
int64_t Answers(AnswerHabit& habit, int times, int64_t late, int64_t now) {
  for (int i = 0; i < times; ++i) {
    habit.SaidAlone(now += 1'000'000);
    EXPECT_TRUE(habit.listens());
    habit.Answered(now += late);
    EXPECT_FALSE(habit.listens());
  }
  return now;
}

TEST(AnswerHabit, IsOfQuickAnswersInARow) {
  constexpr int kEnough = policy::kTransferQuickAnswers;
  constexpr int64_t kQuick = policy::kTransferAnswerNanos / 2, kLate = policy::kTransferAnswerNanos;
  AnswerHabit habit;
  int64_t now = Answers(habit, kEnough - 1, kQuick, 1);
  EXPECT_FALSE(habit.expected());
  now = Answers(habit, 1, kLate, now);  // as if there had been none
  now = Answers(habit, kEnough - 1, kQuick, now);
  EXPECT_FALSE(habit.expected());
  now = Answers(habit, 1, kQuick, now);
  EXPECT_TRUE(habit.expected());
  // An answer that did not come in time ends it at once.
  habit.SaidAlone(now += 1'000'000);
  EXPECT_FALSE(habit.expected());
  // Two words without an answer between them: writes that come one after another.
  habit.Answered(now + kQuick);
  now = Answers(habit, kEnough - 2, kQuick, now);
  habit.SaidAlone(now += 1'000'000);
  habit.SaidAlone(now += 1'000'000);
  habit.Answered(now + kQuick);
  now = Answers(habit, kEnough - 2, kQuick, now);
  EXPECT_FALSE(habit.expected());
  Answers(habit, 1, kQuick, now);
  EXPECT_TRUE(habit.expected());
}

TEST(Card, ComesBackFromText) {
  const Card card{.engine = 1ull << 63 | 2,
                  .name = "a name with spaces",
                  .host = "host",
                  .local = "",
                  .rails = {{std::string("\0\1\2", 3), "10.0.0.0/8 10.1.2.3"}, {"second", ""}}};
  const auto back = Card::FromText(card.ToText());
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->engine, card.engine);
  EXPECT_EQ(back->name, card.name);
  EXPECT_EQ(back->local, card.local);
  ASSERT_EQ(back->rails.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(back->rails[i].address, card.rails[i].address);
    EXPECT_EQ(back->rails[i].interface, card.rails[i].interface);
  }
}

TEST(Card, BrokenTextIsRefused) {
  const std::string good =
      Card{.engine = 77, .name = "n", .host = "h", .local = "l", .rails = {{"r", ""}}}.ToText();
  ASSERT_TRUE(Card::FromText(good).ok());
  for (const std::string& bad :
       {std::string(), std::string("cohort-transfer-2"), "x" + good, good + " ", good + " %%%",
        good + " cg==", good + " :cg==", good + " cg==:%", good.substr(0, 25),
        good.substr(0, good.rfind(' ')), std::string("cohort-transfer-2 x bg== aA== bA== cg==:"),
        std::string("cohort-transfer-2 0 bg== aA== bA== cg==:"), std::string(1 << 20, ' ')}) {
    const auto card = Card::FromText(bad);
    EXPECT_EQ(card.status().code(), absl::StatusCode::kInvalidArgument) << bad.substr(0, 80);
  }
}

// Both sides find the same pairs in the same order, each of one network; what both hosts have reaches nobody.
TEST(Interfaces, OfOneNetworkArePairedAlikeOnBothSides) {
  using ucx::Interface;
  const Interface bridge = {"docker0", "172.17.0.0/16", "172.17.0.1"};
  const std::vector<Interface> one = {
      {"eth1", "10.1.0.0/24", "10.1.0.1"}, bridge, {"eth0", "10.0.0.0/24", "10.0.0.1"}};
  const std::vector<Interface> two = {{"a", "10.0.0.0/24", "10.0.0.2"},
                                      {"b", "10.9.0.0/24", "10.9.0.2"},
                                      {"c", "10.1.0.0/24", "10.1.0.2"},
                                      {"d", "10.1.0.0/24", "10.1.0.3"},
                                      bridge};
  using Pairs = std::vector<std::pair<int, int>>;
  EXPECT_EQ(ucx::PairInterfaces(one, two), (Pairs{{2, 0}, {0, 2}}));
  EXPECT_EQ(ucx::PairInterfaces(two, one), (Pairs{{0, 2}, {2, 0}}));
  // Routers, or no names at all: the first of each.
  EXPECT_EQ(ucx::PairInterfaces(one, {{"x", "10.5.0.0/24", "10.5.0.1"}}), (Pairs{{0, 0}}));
  EXPECT_EQ(ucx::PairInterfaces(one, {Interface{}}), (Pairs{{0, 0}}));
  EXPECT_EQ(ucx::PairInterfaces({Interface{}}, {Interface{}}), (Pairs{{0, 0}}));
}

TEST(Interfaces, ComeBackFromText) {
  const auto back = ucx::Interface::FromText(ucx::Interface{"eth0", "10.0.0.0/24", "10.0.0.1"}.ToText());
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->network + back->address, "10.0.0.0/2410.0.0.1");
  EXPECT_TRUE(ucx::Interface::FromText(ucx::Interface{}.ToText()).ok());
  EXPECT_EQ(ucx::Interface::FromText("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(ucx::Interfaces().empty());
}

}  // namespace
}  // namespace cohort::comm::transfer
