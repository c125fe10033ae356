// Balanced stages against trying every split.
#include "parallel/pipeline/balance.h"

#include <algorithm>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cohort::parallel::pipeline {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(PipelineBalance, NoSplitIsBetter) {
  std::mt19937 random(7);
  for (int round = 0; round < 60; ++round) {
    const int count = 1 + static_cast<int>(random() % 9), stages = 1 + static_cast<int>(random() % count);
    std::vector<double> blocks(count);
    for (double& block : blocks) block = static_cast<double>(random() % 10);
    const double embedding = static_cast<double>(random() % 5), head = static_cast<double>(random() % 12);
    double least = 1e300, squares = 1e300;
    const std::function<void(int, int, double, double)> search = [&](int stage, int begin, double most,
                                                                     double sum) {
      if (stage == stages) {
        if (begin < count) return;
        if (most < least || (most == least && sum < squares)) least = most, squares = sum;
        return;
      }
      double own = (stage == 0 ? embedding : 0) + (stage == stages - 1 ? head : 0);
      for (int end = begin + 1; end <= count; ++end) {
        own += blocks[end - 1];
        search(stage + 1, end, std::max(most, own), sum + own * own);
      }
    };
    search(0, 0, 0, 0);
    const StageSplit split = *BalanceStages(blocks, embedding, head, stages);
    double found = 0;
    for (const double cost : split.cost) found += cost * cost;
    EXPECT_DOUBLE_EQ(*std::max_element(split.cost.begin(), split.cost.end()), least);
    EXPECT_DOUBLE_EQ(found, squares);
    EXPECT_EQ(split.first_block.front(), 0);
    EXPECT_EQ(split.first_block.back(), count);
    EXPECT_EQ(std::adjacent_find(split.first_block.begin(), split.first_block.end(), std::greater_equal<>()),
              split.first_block.end());
  }
}

TEST(PipelineBalance, AHeavyHeadTakesBlocksFromTheLastStage) {
  const StageSplit split = *BalanceStages(std::vector<double>(14, 1.0), 0.5, 2, 4);
  EXPECT_THAT(split.cost, ElementsAre(4.5, 4, 4, 4));
  EXPECT_THAT(split.first_block, ElementsAre(0, 4, 8, 12, 14));
}

TEST(PipelineBalance, WhatCannotBeIsRefused) {
  const auto said = [](const std::vector<double>& blocks, double head, int stages) {
    return std::string(BalanceStages(blocks, 0, head, stages).status().message());
  };
  EXPECT_THAT(said({1, 1}, 0, 3), HasSubstr("3 pipeline stages for 2 blocks"));
  EXPECT_THAT(said({1, 1}, 0, 0), HasSubstr("0 pipeline stages for 2 blocks"));
  EXPECT_THAT(said({}, 0, 1), HasSubstr("1 pipeline stages for 0 blocks"));
  EXPECT_THAT(said({1, -1}, 0, 1), HasSubstr("the cost of block 1 is -1"));
  EXPECT_THAT(said({1, 1}, -2, 1), HasSubstr("the embedding and the head are 0 and -2"));
}

}  // namespace
}  // namespace cohort::parallel::pipeline
