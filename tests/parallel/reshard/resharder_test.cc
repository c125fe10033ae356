// Plans executed by real processes: 4 -> 3 -> 8 -> 1 ranks and back, flat shards and boxes, bit for bit.
#include "parallel/reshard/resharder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "tests/parallel/reshard/layouts.h"
#include "tests/support/ranks.h"

namespace cohort::parallel {
namespace {

comm::transfer::Options OptionsOf(bool shared_memory) {
  comm::transfer::Options options;
  options.rails = {"lo"};
  options.shared_memory = shared_memory;
  return options;
}

void RunChain(const std::vector<Layout>& chain, bool shared_memory) {
  testing::RunRanks(chain[0].world(), [&](comm::Communicator& world) {
    const auto rank = static_cast<size_t>(world.rank());
    auto resharder = Resharder::Create(world, OptionsOf(shared_memory));
    ASSERT_TRUE(resharder.ok()) << resharder.status();
    Contents held(chain[0].ranks[rank]);
    held.Fill(chain[0].ranks[rank]);
    for (size_t i = 1; i < chain.size(); ++i) {
      const Layout &before = chain[i - 1], &after = chain[i];
      ReshardOptions options;
      options.turn_bytes = 64;
      const auto plan = PlanReshard(before, after, options);
      ASSERT_TRUE(plan.ok()) << plan.status();
      Contents next(after.ranks[rank]);
      const absl::Status status =
          (*resharder)->Run(before, after, *plan, {held.Sources(), next.Targets()}, absl::Seconds(20));
      ASSERT_TRUE(status.ok()) << status;
      // Nobody needs the old memory any more.
      held = std::move(next);
      EXPECT_EQ(held.Wrong(after.ranks[rank]), 0) << "layout " << i << ", rank " << rank;
    }
  });
}

TEST(ResharderTest, FourThreeEightOneRanks) {
  RunChain({FlatShards(4, 8), Mixed(3, 8), FlatShards(8, 8), Boxes(1, 8, 0), Boxes(8, 8, 1)},
           /*shared_memory=*/true);
}

TEST(ResharderTest, OverTheNetwork) {
  RunChain({FlatShards(2, 3), Mixed(3, 3), Boxes(2, 3, 0), FlatShards(1, 3)}, /*shared_memory=*/false);
}

TEST(ResharderTest, APieceThatStaysMayKeepItsMemory) {
  testing::RunRanks(2, [&](comm::Communicator& world) {
    const auto rank = static_cast<size_t>(world.rank());
    auto resharder = Resharder::Create(world, OptionsOf(true));
    ASSERT_TRUE(resharder.ok()) << resharder.status();
    const Layout before = Boxes(1, 2, 0),
                 after = Boxes(2, 2, 0);  // norms stay on rank 0, and are new on rank 1
    Contents held(before.ranks[rank]), next(after.ranks[rank]);
    held.Fill(before.ranks[rank]);
    PieceMemory memory = {held.Sources(), next.Targets()};
    for (size_t i = 0; i < before.ranks[rank].size(); ++i) {
      if (before.ranks[rank][i].piece == after.ranks[rank][i].piece) memory.after[i] = held.data(i);
    }
    const auto plan = PlanReshard(before, after, {});
    ASSERT_TRUE(plan.ok()) << plan.status();
    const absl::Status status = (*resharder)->Run(before, after, *plan, memory, absl::Seconds(20));
    ASSERT_TRUE(status.ok()) << status;
    for (size_t i = 0; i < before.ranks[rank].size(); ++i) {
      if (memory.after[i] == held.data(i))
        std::memcpy(next.data(i), held.data(i), after.ranks[rank][i].bytes());
    }
    EXPECT_EQ(next.Wrong(after.ranks[rank]), 0);
  });
}

TEST(ResharderTest, ALostRankIsAnErrorOnAllOthers) {
  testing::SharedCounter connected;
  testing::RunRanks(
      3,
      [&](comm::Communicator& world) {
        const auto rank = static_cast<size_t>(world.rank());
        auto resharder = Resharder::Create(world, OptionsOf(true));
        ASSERT_TRUE(resharder.ok()) << resharder.status();
        const Layout before = FlatShards(3, 3), after = Boxes(3, 3, 1);
        const auto plan = PlanReshard(before, after, {});
        ASSERT_TRUE(plan.ok()) << plan.status();
        connected.Add();
        ASSERT_TRUE(connected.WaitFor(3));
        if (rank == 1) raise(SIGKILL);
        Contents held(before.ranks[rank]), next(after.ranks[rank]);
        held.Fill(before.ranks[rank]);
        const absl::Status status =
            (*resharder)->Run(before, after, *plan, {held.Sources(), next.Targets()}, absl::Seconds(20));
        EXPECT_FALSE(status.ok());
        EXPECT_EQ(held.Wrong(before.ranks[rank]), 0) << "the old pieces are what they were";
      },
      {.victims = {1}});
}

}  // namespace
}  // namespace cohort::parallel
