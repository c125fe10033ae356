#include "parallel/reshard/reshard_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <set>

#include "tests/parallel/reshard/layouts.h"

namespace cohort::parallel {
namespace {

using runtime::Piece;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// The plan, after its checker passed it and copying by it has given every rank the right bytes.
ReshardPlan GoodPlan(const Layout& before, const Layout& after, const ReshardOptions& options = {}) {
  const auto plan = PlanReshard(before, after, options);
  EXPECT_TRUE(plan.ok()) << plan.status();
  if (!plan.ok()) return {};
  const absl::Status checked = CheckReshard(before, after, options, *plan);
  EXPECT_TRUE(checked.ok()) << checked;
  std::vector<Contents> old, made;
  for (const auto& pieces : before.ranks) old.emplace_back(pieces).Fill(pieces);
  for (const auto& pieces : after.ranks) made.emplace_back(pieces);
  for (const PieceCopy& copy : plan->copies) {
    const auto from = static_cast<size_t>(copy.from_piece), to = static_cast<size_t>(copy.to_piece);
    const size_t element = SizeOf(after.ranks[static_cast<size_t>(copy.destination)][to].dtype);
    for (int64_t block = 0; block < copy.blocks; ++block) {
      std::memcpy(made[static_cast<size_t>(copy.destination)].data(to) +
                      static_cast<size_t>(copy.to + block * copy.to_stride) * element,
                  old[static_cast<size_t>(copy.source)].data(from) +
                      static_cast<size_t>(copy.from + block * copy.from_stride) * element,
                  static_cast<size_t>(copy.count) * element);
    }
  }
  for (size_t rank = 0; rank < made.size(); ++rank) EXPECT_EQ(made[rank].Wrong(after.ranks[rank]), 0) << rank;
  return *plan;
}

Layout Of(std::vector<std::vector<Piece>> ranks) {
  Layout layout;
  for (const auto& pieces : ranks) {
    layout.ranks.emplace_back();
    for (const Piece& piece : pieces) layout.ranks.back().push_back({piece, DataType::kF32});
  }
  return layout;
}
Piece Rows(int64_t begin, int64_t end) { return Piece::Box("w", {4, 6}, 0, begin, end); }
Piece Columns(int64_t begin, int64_t end) { return Piece::Box("w", {4, 6}, 1, begin, end); }

TEST(ReshardPlanTest, WhatIsThereStays) {
  const Layout layout = FlatShards(4, 4);
  const ReshardPlan plan = GoodPlan(layout, layout);
  const ReshardTotals totals = TotalsOf(layout, {}, plan);
  EXPECT_EQ(totals.stay, totals.total);
  EXPECT_EQ(totals.moved(), 0);
  for (const PieceCopy& copy : plan.copies) EXPECT_EQ(copy.blocks, 1) << "a piece is one run of itself";
  // From copies to parts of them, nothing moves.
  EXPECT_EQ(TotalsOf(FlatShards(4, 4), {}, GoodPlan(Boxes(4, 4, 1), Boxes(4, 4, 1))).moved(), 0);
  const Layout copies = Of({{Rows(0, 4)}, {Rows(0, 4)}}), parts = Of({{Columns(0, 3)}, {Columns(3, 6)}});
  EXPECT_EQ(TotalsOf(parts, {}, GoodPlan(copies, parts)).moved(), 0);
}

TEST(ReshardPlanTest, RowsToColumnsMovesWhatIsNotOnTheDiagonal) {
  const Layout rows = Of({{Rows(0, 2)}, {Rows(2, 4)}}), columns = Of({{Columns(0, 3)}, {Columns(3, 6)}});
  const ReshardPlan plan = GoodPlan(rows, columns);
  // Of 24 elements each rank keeps 6 and sends 6: two rows of three, in one copy of two blocks.
  ASSERT_EQ(plan.copies.size(), 4u);
  PieceCopy sent;
  sent.source = 0;
  sent.destination = 1;
  sent.from = 3;
  sent.to = 0;
  sent.count = 3;
  sent.blocks = 2;
  sent.from_stride = 6;
  sent.to_stride = 3;
  EXPECT_EQ(plan.copies[1], sent);
  const ReshardTotals totals = TotalsOf(columns, {}, plan);
  EXPECT_EQ(totals.total, 96);
  EXPECT_EQ(totals.stay, 48);
  EXPECT_EQ(totals.within_hosts, 48);
  EXPECT_EQ(totals.messages, 2);
  EXPECT_EQ(totals.blocks, 4);
  EXPECT_EQ(totals.most_sent, 24);
}

TEST(ReshardPlanTest, TheSameHostIsAskedFirst) {
  // Ranks 0 and 3 have everything; 1 is a neighbour of 0, and 2 of 3.
  const Layout before = Of({{Rows(0, 4)}, {}, {}, {Rows(0, 4)}});
  const Layout after = Of({{Rows(0, 4)}, {Rows(0, 4)}, {Rows(1, 3)}, {Rows(0, 4)}});
  const ReshardOptions options = {.host_of = {0, 0, 1, 1}};
  const ReshardPlan plan = GoodPlan(before, after, options);
  const ReshardTotals totals = TotalsOf(after, options, plan);
  EXPECT_EQ(totals.between_hosts, 0);
  EXPECT_EQ(totals.within_hosts, 96 + 48);
  // Where the neighbour has a part alone, the rest comes from afar.
  const Layout partly = Of({{Rows(0, 4)}, {}, {}, {Rows(2, 4)}});
  const Layout wanted = Of({{}, {}, {Rows(0, 4)}, {}});
  const ReshardTotals two = TotalsOf(wanted, options, GoodPlan(partly, wanted, options));
  EXPECT_EQ(two.between_hosts, 48);
  EXPECT_EQ(two.within_hosts, 48);
  EXPECT_EQ(two.host_bytes, 48);
}

TEST(ReshardPlanTest, SeveralHoldersShareTheWork) {
  Layout before = Empty(8), after = Empty(8);
  const Piece big = Piece::Whole("big", {1000, 1000});
  for (int rank = 0; rank < 4; ++rank)
    before.ranks[static_cast<size_t>(rank)].push_back({big, DataType::kF32});
  for (int rank = 4; rank < 6; ++rank)
    after.ranks[static_cast<size_t>(rank)].push_back({big, DataType::kF32});
  ReshardOptions options;
  options.turn_bytes = 100'000;
  const auto plan = PlanReshard(before, after, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(CheckReshard(before, after, options, *plan).ok());
  const ReshardTotals totals = TotalsOf(after, options, *plan);
  EXPECT_EQ(totals.moved(), 8'000'000);
  EXPECT_LE(totals.most_sent, 2'100'000);
}

// Of columns every row is a run: the runs are blocks of one copy, also where several ranks take turns with them.
TEST(ReshardPlanTest, RunsThatRepeatAreBlocks) {
  const Piece columns = Piece::Box("w", {1000, 60}, 1, 20, 40);
  const Layout before = Of({{Piece::Whole("w", {1000, 60})}, {Piece::Whole("w", {1000, 60})}, {}, {}});
  const Layout after = Of({{}, {}, {columns}, {columns}});
  const ReshardPlan one = GoodPlan(before, after, {.turn_bytes = 1 << 20});
  EXPECT_EQ(one.copies.size(), 2u);
  const ReshardPlan turns = GoodPlan(before, after, {.turn_bytes = 16'000});
  EXPECT_EQ(turns.copies.size(), 10u) << "80 KB in fives, each to two ranks";
  const ReshardTotals totals = TotalsOf(after, {}, turns);
  EXPECT_EQ(totals.most_sent, 80'000);
  // Less than a run.
  GoodPlan(before, after, {.turn_bytes = 36});
}

TEST(ReshardPlanTest, LostRanksAreNoSources) {
  const Layout before = Of({{Rows(0, 2)}, {Rows(2, 4)}, {Rows(0, 2)}, {Rows(2, 4)}});
  const Layout after = Of({{Rows(0, 4)}, {}, {Rows(0, 4)}, {}});
  GoodPlan(before, after, {.lost = {1}});
  const auto gone = PlanReshard(before, after, {.lost = {1, 3}});
  EXPECT_EQ(gone.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(
      std::string(gone.status().message()),
      HasSubstr(
          "rank 0 needs element 12 of tensor 'w', which no rank has that is left (of those lost, 1, 3"));
  EXPECT_THAT(std::string(PlanReshard(before, before, {.lost = {2}}).status().message()),
              HasSubstr("rank 2 is lost and is to hold w [4,6], dim 0: [0,2)"));
}

TEST(ReshardPlanTest, BrokenLayoutsAreRefused) {
  const Layout good = Of({{Rows(0, 4)}, {}});
  EXPECT_THAT(std::string(PlanReshard(good, Of({{Rows(0, 4)}}), {}).status().message()),
              HasSubstr("one layout numbers 2 ranks, the other 1"));
  Layout other = good;
  HeldPiece piece = good.ranks[0][0];
  piece.dtype = DataType::kBF16;
  other.ranks[0] = {piece};
  EXPECT_THAT(std::string(PlanReshard(good, other, {}).status().message()),
              HasSubstr("of f32 and, on rank 0,"));
  piece = good.ranks[0][0];
  piece.piece.end = 5;
  other.ranks[0] = {piece};
  EXPECT_THAT(std::string(PlanReshard(good, other, {}).status().message()),
              HasSubstr("outside of dimension 0"));
  EXPECT_THAT(std::string(PlanReshard(good, good, {.host_of = {0}}).status().message()),
              HasSubstr("hosts of 1"));
  EXPECT_THAT(std::string(PlanReshard(good, good, {.lost = {2}}).status().message()), HasSubstr("no rank 2"));
  EXPECT_THAT(std::string(PlanReshard(Of({{Rows(0, 3)}, {}}), good, {}).status().message()),
              HasSubstr("rank 0 needs element 18 of tensor 'w', which no rank has; it"));
}

TEST(ReshardPlanTest, FromAnyLayoutToAnyOther) {
  const std::vector<Layout> layouts = {FlatShards(4, 8), Mixed(3, 8),    FlatShards(8, 8), Boxes(1, 8, 0),
                                       Boxes(3, 8, 0),   Boxes(8, 8, 1), Mixed(5, 8),      FlatShards(1, 8)};
  for (const Layout& before : layouts) {
    for (const Layout& after : layouts)
      GoodPlan(before, after, {.host_of = {0, 0, 0, 1, 1, 1, 2, 2}, .turn_bytes = 64});
  }
}

// Any pieces: what nobody has is on rank 0 too.
TEST(ReshardPlanTest, RandomPieces) {
  std::mt19937 random(11);
  const auto below = [&](int64_t bound) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(bound + 1));
  };
  for (int round = 0; round < 150; ++round) {
    runtime::Shape full;
    for (size_t i = 0; i < 1 + random() % 3; ++i) full.push_back(1 + below(5));
    const auto any = [&] {
      const int dim = static_cast<int>(random() % full.size());
      const int64_t begin = below(full[static_cast<size_t>(dim)]);
      const Piece box =
          Piece::Box("t", full, dim, begin, begin + below(full[static_cast<size_t>(dim)] - begin));
      const int64_t first = below(box.size());
      return HeldPiece{box.Range(first, first + below(box.size() - first)), DataType::kF32};
    };
    Layout before = Empty(5), after = Empty(5);
    before.ranks[0].push_back({Piece::Whole("t", full), DataType::kF32});
    for (size_t rank = 0; rank < 5; ++rank) {
      for (size_t i = 0; i < random() % 4; ++i) before.ranks[rank].push_back(any());
      for (size_t i = 0; i < random() % 4; ++i) after.ranks[rank].push_back(any());
    }
    if (round % 3 == 0) before.ranks[4] = before.ranks[2];
    if (round % 5 == 0) after.ranks[4] = after.ranks[2];
    GoodPlan(before, after, {.host_of = {0, 1, 1, 2, 2}, .turn_bytes = 8});
  }
}

TEST(CheckReshardTest, FindsWhatIsWrong) {
  const Layout rows = Of({{Rows(0, 2)}, {Rows(2, 4)}}), columns = Of({{Columns(0, 3)}, {Columns(3, 6)}});
  const ReshardPlan good = GoodPlan(rows, columns);
  const auto message = [&](const std::function<void(ReshardPlan&)>& change,
                           const ReshardOptions& options = {}) {
    ReshardPlan plan = good;
    change(plan);
    return std::string(CheckReshard(rows, columns, options, plan).message());
  };
  EXPECT_EQ(message([](ReshardPlan&) {}), "");
  EXPECT_THAT(message([](ReshardPlan& p) { p.copies.pop_back(); }), HasSubstr("never arrives"));
  EXPECT_THAT(message([](ReshardPlan& p) { p.copies.push_back(p.copies[0]); }), HasSubstr("arrives twice"));
  EXPECT_THAT(message([](ReshardPlan& p) { p.copies[1].from -= 1; }), HasSubstr("where w [4,6]"));
  EXPECT_THAT(message([](ReshardPlan& p) { p.copies[1].to_stride = 4; }),
              HasSubstr("copy 1, from rank 0 to rank 1"));
  EXPECT_THAT(message([](ReshardPlan& p) { p.copies[1].blocks = 3; }), HasSubstr("outside of its pieces"));
  EXPECT_THAT(message([](ReshardPlan& p) { p.copies[1].source = 2; }), HasSubstr("no old piece"));
  EXPECT_THAT(message([](ReshardPlan& p) { p.copies[1].to_piece = 1; }), HasSubstr("no new piece"));
  EXPECT_THAT(message([](ReshardPlan& p) { p.copies[1].count = 0; }), HasSubstr("empty"));
  EXPECT_THAT(message([](ReshardPlan&) {}, {.lost = {0}}), HasSubstr("the source is lost"));
  // A byte that the destination has itself need not travel.
  const Layout copies = Of({{Rows(0, 2)}, {Rows(0, 4)}});
  PieceCopy needless;
  needless.source = 0;
  needless.destination = 1;
  needless.count = 12;
  PieceCopy rest = needless;
  rest.source = 1;
  rest.from = rest.to = 12;
  const Layout whole = Of({{}, {Rows(0, 4)}});
  EXPECT_THAT(std::string(CheckReshard(copies, whole, {}, {{needless, rest}}).message()),
              HasSubstr("there already"));
}

TEST(ReshardTotalsTest, InWordsWithAPrice) {
  const Layout before = Of({{Rows(0, 4)}, {}}), after = Of({{}, {Rows(0, 4)}});
  const ReshardOptions options = {.host_of = {0, 1}};
  const ReshardTotals totals = TotalsOf(after, options, GoodPlan(before, after, options));
  const ReshardRates rates = {.rank_bytes_per_second = 960, .host_bytes_per_second = 96};
  EXPECT_DOUBLE_EQ(LeastSeconds(totals, rates), 1);
  EXPECT_EQ(DebugString(totals, &rates),
            "0 B of 96 B stay where they are\n"
            "96 B move in 1 messages of 1 blocks: 0 B within hosts, 96 B between them\n"
            "most sent: 96 B by rank 0; most received: 96 B by rank 1\n"
            "busiest host: 96 B one way\n"
            "at least 1 s\n");
}

}  // namespace
}  // namespace cohort::parallel
