// What the table says each rank holds, by hand for small cases, and how gathers are ordered.
#include "parallel/sharding/memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "parallel/sharding/gather_order.h"

namespace cohort::parallel {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// An embedding of 800 elements, two blocks of 400, a head of 800.
std::vector<std::vector<BucketSize>> Groups(const char* sharding, int ranks) {
  const Splits splits = *Resolve(*ParseSharding(sharding), 2, ranks);
  std::vector<std::vector<BucketSize>> groups;
  for (const int64_t elements : {800, 400, 400, 800}) groups.push_back({{elements, splits, 0}});
  return groups;
}

StateMemory Plan(const char* sharding, int ranks, bool tied = false) {
  return PlanMemory(Groups(sharding, ranks), {.groups = 4, .tied = tied}, /*compute_bytes=*/2,
                    /*state_bytes=*/4,
                    /*same_type=*/false);
}

TEST(StateMemory, WholeCopies) {
  const StateMemory memory = Plan("ddp", 4);
  EXPECT_EQ(memory.parameters, 2400 * 2);
  EXPECT_EQ(memory.gradients, 2400 * 4);
  EXPECT_EQ(memory.optimizer, 2400 * 12);
  EXPECT_EQ(memory.gathered + memory.reducing, 0);
  EXPECT_EQ(memory.peak, 2400 * 18);
}

TEST(StateMemory, EachKindIsDividedByItsLevel) {
  EXPECT_EQ(Plan("zero-1", 4).optimizer, 600 * 12);
  EXPECT_EQ(Plan("zero-1", 4).gradients, 2400 * 4 + 600 * 4);  // whole ones, and the shard that is updated
  EXPECT_EQ(Plan("zero-2", 4).gradients, 600 * 4);
  EXPECT_EQ(Plan("zero-2", 4).parameters, 2400 * 2);
  EXPECT_EQ(Plan("zero-3", 4).parameters, 600 * 2);
  EXPECT_EQ(Plan("zero++", 4).parameters, 600 * 2 + 1200 * 2);
  EXPECT_EQ(Plan("NIG", 4).gradients, 1200 * 4 + 600 * 4);
  EXPECT_EQ(Plan("2/2/world", 4).parameters, 1200 * 2);
}

TEST(StateMemory, NoMoreThanTwoGroupsAreWholeAtATime) {
  const StateMemory memory = Plan("zero-3", 4);
  EXPECT_EQ(memory.gathered, 1200 * 2);  // embedding and first block; last block and head
  EXPECT_EQ(memory.reducing, 1200 * 4);  // head's on their way while the last block's are made
  // At the first backward of a block: head's gradients leave, both blocks are whole.
  EXPECT_EQ(memory.peak, memory.resident() + 1200 * 4 + 800 * 2);
  EXPECT_EQ(Plan("zero-3", 4, /*tied=*/true).gathered, 2000 * 2);
}

TEST(StateMemory, HalvesThatInterleaveKeepWholeGradientsOfAllBlocks) {
  using enum pipeline::ActionKind;
  const Splits splits = *Resolve(*ParseSharding("zero-2"), 2, 4);
  const std::vector<std::vector<BucketSize>> groups(3, {{400, splits, 0}});
  const GroupLayout blocks = {.groups = 3, .embedding = false, .head = false};
  const auto reducing = [&](const std::vector<pipeline::ActionKind>& kinds) {
    std::vector<pipeline::Action> actions;
    for (const pipeline::ActionKind kind : kinds) actions.push_back({.kind = kind});
    return PlanMemory(groups, blocks, 2, 4, false, actions).reducing;
  };
  EXPECT_EQ(reducing({}), 800 * 4);
  EXPECT_EQ(reducing({kForward, kForward, kBackward, kBackward}), 800 * 4);
  EXPECT_EQ(reducing({kForward, kForward, kBackwardInput, kBackwardWeight, kBackward}), 1200 * 4);
  EXPECT_EQ(reducing({kForward, kForward, kBackwardInput, kBackwardInput, kBackwardWeight, kBackwardWeight}),
            1200 * 4);
}

TEST(GatherOrder, OneAheadInBothDirectionsAndTheLastBlockStays) {
  GatherOrder order({.groups = 4});
  order.Begin(true);
  EXPECT_THAT(order.BeforeForward(0).gather, ElementsAre(0, 1));
  EXPECT_THAT(order.AfterForward(0).free, ElementsAre(0));
  EXPECT_THAT(order.BeforeForward(1).gather, ElementsAre(2));
  EXPECT_THAT(order.AfterForward(1).free, ElementsAre(1));
  EXPECT_THAT(order.BeforeForward(2).gather, ElementsAre(3));
  EXPECT_THAT(order.AfterForward(2).free, IsEmpty());
  EXPECT_THAT(order.BeforeForward(3).gather, IsEmpty());
  EXPECT_THAT(order.BeforeBackward(3).gather, IsEmpty());
  EXPECT_THAT(order.AfterBackward(3).free, ElementsAre(3));
  EXPECT_THAT(order.BeforeBackward(2).gather, ElementsAre(1));
  EXPECT_THAT(order.AfterBackward(2).free, ElementsAre(2));
  EXPECT_THAT(order.BeforeBackward(1).gather, IsEmpty());
  EXPECT_THAT(order.AfterBackward(1).free, ElementsAre(1));
  EXPECT_THAT(order.BeforeBackward(0).gather, IsEmpty());  // rows are not needed for their gradients
  EXPECT_THAT(order.AfterBackward(0).free, IsEmpty());
  EXPECT_THAT(order.BeforeForward(0).gather, ElementsAre(0, 1));  // the next micro-batch
  EXPECT_THAT(order.End().free, ElementsAre(0, 1));
}

TEST(GradientOrder, OneGroupIsOnItsWayWhileAnotherIsMadeAndNoneBesideTheHeads) {
  using Groups = std::vector<int>;
  GradientOrder order({.groups = 4});
  for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
    const bool first = micro_batch == 0;
    EXPECT_EQ(order.BeforeForward(0), first ? Groups() : Groups({1}));
    for (int group = 1; group < 4; ++group) EXPECT_THAT(order.BeforeForward(group), IsEmpty());
    EXPECT_EQ(order.BeforeBackward(3), first ? Groups() : Groups({0}));
    order.AfterBackward(3);
    EXPECT_THAT(order.BeforeBackward(2), IsEmpty());
    order.AfterBackward(2);
    EXPECT_THAT(order.BeforeBackward(1), ElementsAre(3));
    order.AfterBackward(1);
    EXPECT_THAT(order.BeforeBackward(0), ElementsAre(2));
    order.AfterBackward(0);
  }
  EXPECT_THAT(order.End(), ElementsAre(1, 0));
  // A part of one block is its own next one.
  GradientOrder one({.groups = 1, .embedding = false, .head = false});
  one.AfterBackward(0);
  EXPECT_THAT(one.BeforeForward(0), IsEmpty());
  EXPECT_THAT(one.BeforeBackward(0), ElementsAre(0));
}

TEST(GatherOrder, PartsOfAPipelineInterleaveMicroBatches) {
  GatherOrder order({.groups = 2, .embedding = false, .head = false});
  order.Begin(true);
  for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
    EXPECT_THAT(order.BeforeForward(0).gather, ElementsAre(0, 1));
    EXPECT_THAT(order.AfterForward(0).free, ElementsAre(0));
    EXPECT_THAT(order.BeforeForward(1).gather, IsEmpty());
    EXPECT_THAT(order.AfterForward(1).free, ElementsAre(1));
  }
  EXPECT_THAT(order.BeforeBackward(1).gather, ElementsAre(1, 0));
  EXPECT_THAT(order.AfterBackward(1).free, ElementsAre(1));
  EXPECT_THAT(order.BeforeBackward(0).gather, IsEmpty());
  EXPECT_THAT(order.AfterBackward(0).free, ElementsAre(0));
  EXPECT_THAT(order.End().free, IsEmpty());
}

TEST(GatherOrder, ATiedEmbeddingComesBackForTheHead) {
  GatherOrder order({.groups = 3, .tied = true});
  order.Begin(true);
  order.BeforeForward(0);
  order.AfterForward(0);
  EXPECT_THAT(order.BeforeForward(1).gather, ElementsAre(0, 2));
  order.AfterForward(1);
  order.BeforeForward(2);
  EXPECT_THAT(order.BeforeBackward(0).gather, IsEmpty());
  order.BeforeBackward(2);
  EXPECT_THAT(order.AfterBackward(2).free, ElementsAre(2));
  order.BeforeBackward(1);
  order.AfterBackward(1);
  EXPECT_THAT(order.AfterBackward(0).free, ElementsAre(0));
  // Forward only: the embedding's second use asks for nothing new.
  order.End();
  order.Begin(false);
  order.BeforeForward(0);
  order.AfterForward(0);
  order.BeforeForward(1);
  EXPECT_THAT(order.AfterForward(1).free, ElementsAre(1));
  EXPECT_THAT(order.BeforeForward(0).gather, IsEmpty());
  EXPECT_THAT(order.BeforeForward(2).gather, IsEmpty());
  EXPECT_THAT(order.AfterForward(0).free, ElementsAre(0));
  EXPECT_THAT(order.AfterForward(2).free, ElementsAre(2));
}

// The last stage of a pipeline: a block, a copy of the embedding, the head.
TEST(GatherOrder, ACopyOfTheEmbeddingIsUsedWithTheHead) {
  const GroupLayout layout = {.groups = 3, .embedding = false, .tied = true, .copy = true};
  GatherOrder order(layout);
  order.Begin(true);
  for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
    EXPECT_THAT(order.BeforeForward(0).gather, ElementsAre(0, 1, 2));
    EXPECT_THAT(order.AfterForward(0).free, IsEmpty());  // its backward comes soon
    EXPECT_THAT(order.BeforeForward(2).gather, IsEmpty());
    EXPECT_THAT(order.BeforeBackward(1).gather, IsEmpty());
    EXPECT_THAT(order.BeforeBackward(2).gather, IsEmpty());
    EXPECT_THAT(order.AfterBackward(2).free, ElementsAre(2));
    EXPECT_THAT(order.AfterBackward(1).free, ElementsAre(1));
    EXPECT_THAT(order.BeforeBackward(0).gather, IsEmpty());
    EXPECT_THAT(order.AfterBackward(0).free, ElementsAre(0));
  }
  order.End();
  order.Begin(false);
  EXPECT_THAT(order.BeforeForward(0).gather, ElementsAre(0, 1, 2));
  EXPECT_THAT(order.AfterForward(0).free, ElementsAre(0));
  EXPECT_THAT(order.BeforeForward(1).gather, IsEmpty());
  EXPECT_THAT(order.BeforeForward(2).gather, IsEmpty());
  EXPECT_THAT(order.AfterForward(1).free, ElementsAre(1));
  EXPECT_THAT(order.AfterForward(2).free, ElementsAre(2));
  // The head's gradients and the copy's are made at once; those of the block beside the copy's, on their way.
  const Splits splits = *Resolve(*ParseSharding("zero-3"), 2, 4);
  std::vector<std::vector<BucketSize>> groups;
  for (const int64_t elements : {400, 800, 8}) groups.push_back({{elements, splits, 0}});
  const StateMemory memory = PlanMemory(groups, layout, 2, 4, false);
  EXPECT_EQ(memory.gathered, 1208 * 2);
  EXPECT_EQ(memory.reducing, 1200 * 4);
}

}  // namespace
}  // namespace cohort::parallel
