// Runs of pieces against the definition, element by element.
#include "runtime/model/piece.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace cohort::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Indices in the whole tensor of a piece's elements, in its order, by counting through the box.
std::vector<int64_t> Elements(const Piece& piece) {
  std::vector<int64_t> in_box;
  const int64_t size = piece.full_size();
  int64_t inner = 1;
  for (size_t i = static_cast<size_t>(piece.dim) + 1; i < piece.full.size(); ++i) inner *= piece.full[i];
  for (int64_t i = 0; i < size; ++i) {
    const int64_t at = piece.full.empty() ? 0 : i / inner % piece.full[static_cast<size_t>(piece.dim)];
    if (at >= piece.begin && at < piece.end) in_box.push_back(i);
  }
  return {in_box.begin() + piece.first, in_box.begin() + piece.last};
}

std::vector<int64_t> ElementsByRuns(const Piece& piece) {
  std::vector<int64_t> elements;
  ForEachRun(piece, [&](const PieceRun& run) {
    EXPECT_EQ(run.offset, static_cast<int64_t>(elements.size()));
    EXPECT_GT(run.count, 0);
    if (!elements.empty()) {
      EXPECT_GT(run.full, elements.back() + 1) << "two runs that are one";
    }
    for (int64_t i = 0; i < run.count; ++i) elements.push_back(run.full + i);
  });
  return elements;
}

TEST(PieceTest, RunsOfBoxes) {
  EXPECT_THAT(RunsOf(Piece::Whole("w", {4, 6})), ElementsAre(PieceRun{0, 0, 24}));
  EXPECT_THAT(RunsOf(Piece::Box("w", {4, 6}, 0, 1, 3)), ElementsAre(PieceRun{6, 0, 12}));
  EXPECT_THAT(RunsOf(Piece::Box("w", {3, 6}, 1, 2, 4)),
              ElementsAre(PieceRun{2, 0, 2}, PieceRun{8, 2, 2}, PieceRun{14, 4, 2}));
  EXPECT_THAT(RunsOf(Piece::Box("w", {2, 3, 4}, 1, 1, 3)),
              ElementsAre(PieceRun{4, 0, 8}, PieceRun{16, 8, 8}));
  EXPECT_THAT(RunsOf(Piece::Box("w", {1, 3, 4}, 1, 1, 3)), ElementsAre(PieceRun{4, 0, 8}));
  EXPECT_THAT(RunsOf(Piece::Whole("scalar", {})), ElementsAre(PieceRun{0, 0, 1}));
}

TEST(PieceTest, FlatRangesBeginAndEndMidRow) {
  const Piece box = Piece::Box("w", {3, 6}, 1, 2, 5);  // rows of three
  EXPECT_THAT(RunsOf(box.Range(1, 8)), ElementsAre(PieceRun{3, 0, 2}, PieceRun{8, 2, 3}, PieceRun{14, 5, 2}));
  EXPECT_THAT(RunsOf(box.Range(1, 8).Range(3, 4)), ElementsAre(PieceRun{9, 0, 1}));
  EXPECT_THAT(RunsOf(Piece::Whole("w", {3, 6}).Range(5, 13)), ElementsAre(PieceRun{5, 0, 8}));
}

TEST(PieceTest, NothingHere) {
  EXPECT_THAT(RunsOf(Piece::Box("w", {3, 6}, 1, 2, 2)), IsEmpty());
  EXPECT_THAT(RunsOf(Piece::Whole("w", {3, 6}).Range(4, 4)), IsEmpty());
  EXPECT_THAT(RunsOf(Piece::Whole("w", {0, 6})), IsEmpty());
}

Piece RandomPiece(std::mt19937& random, const Shape& full) {
  const int dim = static_cast<int>(random() % full.size());
  const int64_t begin = static_cast<int64_t>(random()) % (full[dim] + 1);
  const int64_t end = begin + static_cast<int64_t>(random()) % (full[dim] - begin + 1);
  const Piece box = Piece::Box("w", full, dim, begin, end);
  const int64_t first = static_cast<int64_t>(random()) % (box.size() + 1);
  return box.Range(first, first + static_cast<int64_t>(random()) % (box.size() - first + 1));
}

TEST(PieceTest, RunsAndOverlapsOfRandomPieces) {
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    Shape full;
    for (size_t i = 0; i < 1 + random() % 4; ++i) full.push_back(1 + static_cast<int64_t>(random() % 5));
    const Piece a = RandomPiece(random, full), b = RandomPiece(random, full);
    ASSERT_TRUE(CheckPiece(a).ok()) << CheckPiece(a);
    const std::vector<int64_t> of_a = Elements(a), of_b = Elements(b);
    ASSERT_EQ(ElementsByRuns(a), of_a) << a.DebugString();
    std::map<int64_t, int64_t> want, got;  // element of a -> element of b
    for (size_t i = 0; i < of_a.size(); ++i) {
      for (size_t j = 0; j < of_b.size(); ++j) {
        if (of_a[i] == of_b[j]) want[static_cast<int64_t>(i)] = static_cast<int64_t>(j);
      }
    }
    ForEachOverlap(a, b, [&](int64_t x, int64_t y, int64_t count) {
      for (int64_t i = 0; i < count; ++i) EXPECT_TRUE(got.emplace(x + i, y + i).second);
    });
    ASSERT_EQ(got, want) << a.DebugString() << " and " << b.DebugString();
  }
}

TEST(PieceTest, CoverSaysWhatIsMissingOrTwice) {
  const Piece left = Piece::Box("w", {2, 4}, 1, 0, 2), right = Piece::Box("w", {2, 4}, 1, 2, 4);
  EXPECT_TRUE(CheckCover({left, right.Range(0, 1), right.Range(1, 4)}).ok());
  EXPECT_TRUE(CheckCover({Piece::Whole("w", {2, 4}), left.Range(1, 1)}).ok());
  EXPECT_THAT(std::string(CheckCover({left}).message()),
              HasSubstr("elements [2,4) of tensor 'w' are in no piece"));
  EXPECT_THAT(std::string(CheckCover({left, right.Range(0, 3)}).message()), HasSubstr("elements [7,8)"));
  EXPECT_THAT(std::string(CheckCover({left, right, left.Range(3, 4)}).message()),
              HasSubstr("elements [5,6) of tensor 'w' are in two pieces, numbers"));
  EXPECT_THAT(std::string(CheckCover({left.Range(0, 0)}).message()), HasSubstr("elements [0,8)"));
}

TEST(PieceTest, BrokenPieces) {
  const Piece good = Piece::Box("w", {2, 4}, 1, 1, 3);
  EXPECT_TRUE(CheckPiece(good).ok());
  const auto broken = [&](auto&& change) {
    Piece piece = good;
    change(piece);
    return std::string(CheckPiece(piece).message());
  };
  EXPECT_THAT(broken([](Piece& p) { p.dim = 2; }), HasSubstr("no dimension 2"));
  EXPECT_THAT(broken([](Piece& p) { p.dim = -1; }), HasSubstr("no dimension -1"));
  EXPECT_THAT(broken([](Piece& p) { p.end = 5; }), HasSubstr("[1,5) lies outside of dimension 1"));
  EXPECT_THAT(broken([](Piece& p) { p.begin = 4; }), HasSubstr("[4,3)"));
  EXPECT_THAT(broken([](Piece& p) { p.last = 5; }), HasSubstr("elements [0,5) of a box of 4"));
  EXPECT_THAT(broken([](Piece& p) { p.full = {-1, 4}; }), HasSubstr("no such shape"));
  EXPECT_THAT(broken([](Piece& p) {
                p.full = {int64_t{1} << 40, int64_t{1} << 40};
              }),
              HasSubstr("no such shape"));
  EXPECT_THAT(broken([](Piece& p) {
                p.full = {};
                p.dim = 0;
              }),
              HasSubstr("lies outside"));
}

TEST(PieceTest, InWords) {
  EXPECT_EQ(Piece::Whole("w", {4, 6}).DebugString(), "w [4,6]");
  EXPECT_EQ(Piece::Box("w", {4, 6}, 1, 2, 4).Range(0, 5).DebugString(),
            "w [4,6], dim 1: [2,4), elements [0,5)");
}

}  // namespace
}  // namespace cohort::runtime
