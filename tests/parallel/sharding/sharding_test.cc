// The table is a value: what is legal, what it is called, and why the rest is refused.
#include "parallel/sharding/sharding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace cohort::parallel {
namespace {

using ::testing::HasSubstr;

Sharding Parse(const std::string& text) {
  const auto sharding = ParseSharding(text);
  EXPECT_TRUE(sharding.ok()) << sharding.status();
  return sharding.value_or(Sharding());
}

std::string WhyNot(const std::string& text, int shard, int stage) {
  const auto sharding = ParseSharding(text);
  if (!sharding.ok()) return std::string(sharding.status().message());
  return std::string(Resolve(*sharding, shard, stage).status().message());
}

TEST(Sharding, FourteenLetterCombinationsAreLegal) {
  int legal = 0;
  for (const char p : std::string("NIG")) {
    for (const char g : std::string("NIG")) {
      for (const char o : std::string("NIG")) {
        const std::string letters = {p, g, o};
        const auto parsed = ParseSharding(letters);
        if (parsed.ok()) {
          ++legal;
          EXPECT_TRUE(Resolve(*parsed, 2, 8).ok()) << letters;
          EXPECT_EQ(Parse("paro:" + letters), *parsed);
        } else {
          EXPECT_THAT(parsed.status().message(), HasSubstr("at least as finely")) << letters;
        }
      }
    }
  }
  EXPECT_EQ(legal, 14);
  int rows = 0;
  for (const ShardingRow& row : ShardingRows()) {
    rows += std::string(row.name).starts_with("paro:");
    EXPECT_TRUE(Resolve(row.sharding, 2, 8).ok() || std::string(row.name) == "frontier") << row.name;
    EXPECT_EQ(Parse(row.name), row.sharding);
    const std::string letters = std::string(row.name).substr(row.name[0] == 'p' ? 5 : 0);
    if (row.name[0] == 'p') {
      EXPECT_EQ(Parse(letters), row.sharding) << row.name;
    }
  }
  EXPECT_EQ(rows, 14);
}

TEST(Sharding, RowsAreWhatTheyAreCalled) {
  EXPECT_EQ(Parse("zero-3"), Parse("GGG"));
  EXPECT_EQ(Parse("hsdp"), Parse("iii"));
  EXPECT_EQ(*Resolve(Parse("zero-1"), 2, 8), (Splits{1, 1, 1, 8, 8}));
  EXPECT_EQ(*Resolve(Parse("NIG"), 2, 8), (Splits{1, 1, 2, 8, 8}));
  EXPECT_EQ(*Resolve(Parse("zero++"), 2, 8), (Splits{8, 2, 8, 8, 8}));
  EXPECT_EQ(*Resolve(Parse("frontier"), 4, 8), (Splits{2, 1, 4, 8, 8}));
  EXPECT_EQ(*Resolve(Parse("2/shard/world"), 4, 8), (Splits{2, 1, 4, 8, 8}));
  EXPECT_EQ(Parse("zero++").DebugString(),
            "parameters world, gradients world, optimizer world, secondary shard, gathers int8, sums int4");
}

TEST(Sharding, WhatMakesNoSenseIsRefusedWithAReason) {
  EXPECT_THAT(WhyNot("zero-4", 1, 4), HasSubstr("use one of ddp, zero-1"));
  EXPECT_THAT(WhyNot("zero-4", 1, 4), HasSubstr("2/shard/world"));
  EXPECT_THAT(WhyNot("NN", 1, 4), HasSubstr("is not known"));
  EXPECT_THAT(WhyNot("NXG", 1, 4), HasSubstr("is not known"));
  EXPECT_THAT(WhyNot("none/none/0", 1, 4), HasSubstr("is no level"));
  EXPECT_THAT(WhyNot("none/none/-1", 1, 4), HasSubstr("is no level"));
  EXPECT_THAT(WhyNot("world/none/shard", 2, 4), HasSubstr("parameters split over world"));
  EXPECT_THAT(WhyNot("3/3/3", 2, 4), HasSubstr("over 3 ranks, which does not divide the 4 ranks"));
  EXPECT_THAT(WhyNot("4/4/2", 2, 4), HasSubstr("parameters over 4 ranks and optimizer state over 2"));
  EXPECT_THAT(WhyNot("none/4/2", 2, 4), HasSubstr("gradients over 4 ranks and optimizer state over 2"));
  EXPECT_THAT(WhyNot("2/3/world", 3, 6), HasSubstr("levels of 2 and 3"));
  Sharding sharding = Parse("III");
  sharding.secondary = Level::World();
  EXPECT_THAT(Resolve(sharding, 2, 4).status().message(), HasSubstr("must be coarser"));
  sharding = Parse("NNG");
  sharding.gather_codec = comm::CodecKind::kInt8;
  EXPECT_THAT(Resolve(sharding, 2, 4).status().message(), HasSubstr("nothing is gathered"));
  EXPECT_THAT(ParseCodec("int9").status().message(), HasSubstr("int8"));
  EXPECT_EQ(*ParseCodec("none"), std::nullopt);
  EXPECT_EQ(*ParseSharding("zero++", "none", "none", "none"), Parse("zero-3"));
  EXPECT_EQ(*ParseSharding("zero++", "", "", ""), Parse("zero++"));
  EXPECT_EQ(ParseSharding("zero-3", "2", "fp8", "int4")->secondary, Level::Ranks(2));
  EXPECT_THAT(ParseSharding("zero-3", "twice", "", "").status().message(), HasSubstr("'twice'"));
  EXPECT_EQ(*ParseCodec("fp8"), comm::CodecKind::kFp8);
}

TEST(Sharding, ReplicaGroupsWithGapsSplitOverTheirOwnNeighbours) {
  const Splits stage = *Resolve(Parse("2/shard/world"), 4, 16);
  EXPECT_EQ(OfEvery(1, stage), stage);
  EXPECT_EQ(OfEvery(2, stage), (Splits{1, 1, 2, 8, 8}));  // a member every other rank
  EXPECT_EQ(OfEvery(4, stage), (Splits{1, 1, 1, 4, 4}));  // one on each host
  EXPECT_EQ(OfEvery(8, stage), (Splits{1, 1, 1, 2, 2}));
  EXPECT_EQ(OfEvery(16, stage), (Splits{1, 1, 1, 1, 1}));
}

}  // namespace
}  // namespace cohort::parallel
