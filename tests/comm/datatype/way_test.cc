// The choice between packing and copying in place: a function of the layout and of prices.
#include "comm/datatype/way.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace cohort::comm {
namespace {

Datatype Runs(size_t count, size_t run) {
  return *Datatype::HVector(count, run, static_cast<ptrdiff_t>(2 * run), Datatype::Element(DataType::kU8));
}

const LayoutPrices kPrices = {{{8, 1e-9, 100e-9}, {1024, 20e-9, 120e-9}, {65536, 4e-6, 8e-6}}, 0.1e-9};

TEST(LayoutWayTest, PricesAreThoseOfEveryRun) {
  const LayoutCost at = PriceLayout(Runs(10, 1024), kPrices);
  EXPECT_NEAR(at.packed, 10 * 20e-9 + 10240 * 0.1e-9, 1e-15);
  EXPECT_NEAR(at.in_place, 10 * 120e-9, 1e-15);
  const LayoutCost between = PriceLayout(Runs(10, 516), kPrices);  // halfway from 8 to 1024
  EXPECT_NEAR(between.in_place, 10 * 110e-9, 1e-15);
  EXPECT_NEAR(PriceLayout(Runs(10, 2), kPrices).in_place, 10 * 100e-9, 1e-15);
  EXPECT_NEAR(PriceLayout(Runs(10, 131072), kPrices).in_place, 10 * 16e-6, 1e-12);
}

TEST(LayoutWayTest, BlocksAddUp) {
  const std::vector<DatatypeMember> members = {{1, 0, Runs(10, 1024)}, {1, 1 << 20, Runs(3, 8)}};
  const LayoutCost cost = PriceLayout(*Datatype::Struct(members), kPrices);
  EXPECT_NEAR(cost.in_place, 10 * 120e-9 + 3 * 100e-9, 1e-15);
}

TEST(LayoutWayTest, ShortRunsArePackedLongOnesAreNot) {
  EXPECT_EQ(PriceLayout(Runs(1000, 8), kPrices).way(), LayoutWay::kPacked);
  EXPECT_EQ(PriceLayout(Runs(100, 65536), kPrices).way(), LayoutWay::kInPlace);
  LayoutPrices forbidden = kPrices;
  for (RunPrice& price : forbidden.runs) price.in_place = std::numeric_limits<double>::infinity();
  EXPECT_EQ(PriceLayout(Runs(100, 65536), forbidden).way(), LayoutWay::kPacked);
}

TEST(LayoutWayTest, WhatIsMeasuredCanBeChosenBy) {
  const LayoutPrices& prices = MachineLayoutPrices();
  ASSERT_FALSE(prices.runs.empty());
  for (size_t i = 0; i < prices.runs.size(); ++i) {
    EXPECT_GT(prices.runs[i].packed, 0);
    EXPECT_GT(prices.runs[i].in_place, 0);
    if (i > 0) {
      EXPECT_GT(prices.runs[i].run, prices.runs[i - 1].run);
    }
  }
  EXPECT_EQ(PriceLayout(Runs(1000, 1), prices).way(), LayoutWay::kPacked);
}

}  // namespace
}  // namespace cohort::comm
