#include "parallel/reshard/held_pieces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace cohort::parallel {
namespace {

using runtime::Piece;
using ::testing::ElementsAre;

HeldPiece Of(Piece piece, DataType dtype = DataType::kF32) { return {std::move(piece), dtype}; }
HeldPiece Rows(const std::string& name, int64_t begin, int64_t end) {
  return Of(Piece::Box(name, {4, 6}, 0, begin, end));
}

std::vector<int> Counts(const HeldPieces& pieces) {
  std::vector<int> counts;
  for (const HeldBundle& bundle : pieces.bundles()) counts.push_back(bundle.count());
  return counts;
}

void ExpectPieces(const HeldPieces& held, const std::vector<HeldPiece>& expected) {
  ASSERT_EQ(held.size(), expected.size());
  const std::vector<HeldPiece> all = held;
  size_t i = 0;
  for (const HeldPiece& piece : held) {
    EXPECT_EQ(piece.piece, expected[i].piece) << i;
    EXPECT_EQ(piece.dtype, expected[i].dtype) << i;
    EXPECT_EQ(all[i].piece, expected[i].piece) << i;
    EXPECT_EQ(held[i].piece, expected[i].piece) << i;
    EXPECT_EQ(held.dtype(i), expected[i].dtype) << i;
    ++i;
  }
  EXPECT_EQ(i, expected.size());
}

TEST(HeldPiecesTest, WhatLiesAlikeIsOneBundle) {
  const std::vector<HeldPiece> pieces = {
      Rows("w/master", 0, 2),
      Rows("w/m", 0, 2),
      Rows("w/v", 0, 2),
      Rows("u/master", 0, 2),                                        // another parameter's
      Rows("u/m", 0, 3),                                             // another part
      Of(Piece::Whole("u/v", {4, 6}).Range(1, 5), DataType::kBF16),  // another type
      Of(Piece::Whole("bias", {6})),                                 // no kind
      Of(Piece::Whole("bias", {6})),
      Of(Piece::Whole("scalar", {})),
      Of(Piece::Whole("gone", {6}).Range(2, 2)),
  };
  const HeldPieces held = pieces;
  ExpectPieces(held, pieces);
  EXPECT_THAT(Counts(held), ElementsAre(3, 1, 1, 1, 1, 1, 1, 1));
  EXPECT_TRUE(held.bundles().back().empty());
  EXPECT_EQ(held.bundles()[3].first_piece, 5);
}

TEST(HeldPiecesTest, CopiesShareTheirListUntilOneChanges) {
  HeldPieces first = {Rows("w/master", 0, 2)};
  const HeldPieces second = first;
  EXPECT_EQ(first.identity(), second.identity());
  first.push_back(Rows("w/m", 0, 2));
  EXPECT_NE(first.identity(), second.identity());
  ExpectPieces(first, {Rows("w/master", 0, 2), Rows("w/m", 0, 2)});
  ExpectPieces(second, {Rows("w/master", 0, 2)});
  EXPECT_THAT(Counts(first), ElementsAre(2));
  // Of a list that nobody shares nothing is copied.
  const void* before = first.identity();
  first.push_back(Rows("w/v", 0, 2));
  EXPECT_EQ(first.identity(), before);
}

TEST(HeldPiecesTest, ListsOneAfterAnother) {
  HeldPieces all;
  EXPECT_TRUE(all.empty());
  EXPECT_EQ(all.identity(), nullptr);
  {
    // The tensors outlive what they came with.
    const HeldPieces a = {Rows("w/master", 0, 2), Rows("w/m", 0, 2)}, b = {Of(Piece::Whole("bias", {6}))};
    all.Append(a);
    all.Append(HeldPieces());
    all.Append(b);
  }
  all.Append(all);
  const std::vector<HeldPiece> once = {Rows("w/master", 0, 2), Rows("w/m", 0, 2),
                                       Of(Piece::Whole("bias", {6}))};
  std::vector<HeldPiece> twice = once;
  twice.insert(twice.end(), once.begin(), once.end());
  ExpectPieces(all, twice);
  EXPECT_THAT(Counts(all), ElementsAre(2, 1, 2, 1));
}

TEST(HeldPiecesTest, BundlesOfTensorsThatManyListsShare) {
  const auto tensors =
      std::make_shared<TensorBundle>(TensorBundle{{"w/master", "w/m"}, {4, 6}, DataType::kF32});
  const HeldBundle rows = {.tensors = tensors.get(), .dim = 0, .begin = 1, .end = 3, .first = 0, .last = 12};
  HeldBundle part = rows;
  part.first = 3;
  part.last = 9;
  const HeldPieces held(tensors, {rows, part});
  ExpectPieces(held, {Rows("w/master", 1, 3), Rows("w/m", 1, 3), Of(Rows("w/master", 1, 3).piece.Range(3, 9)),
                      Of(Rows("w/m", 1, 3).piece.Range(3, 9))});
}

}  // namespace
}  // namespace cohort::parallel
