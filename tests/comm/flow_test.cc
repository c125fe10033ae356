// Dependencies of schedules that are built in program order.
#include "comm/algorithms/flow.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "comm/algorithms/policy.h"

namespace cohort::comm::algorithms {
namespace {

bool Waits(const Schedule& schedule, StepId step, StepId earlier) {
  const auto after = schedule.After(step);
  return std::find(after.begin(), after.end(), earlier) != after.end();
}

// Pieces of one element that come in one after the other, in a stage, and go on in another.
TEST(Flow, AStageHoldsAFewPieces) {
  constexpr size_t kPieces = 6, kHeld = policy::kPiecesInStage;
  Flow flow(0, kPieces);
  for (size_t piece = 0; piece < kPieces; ++piece) {
    flow.Enter(0);
    flow.Recv(1, {Buffer::kOutput, piece, 1});
    flow.Enter(1);
    flow.Send(2, {Buffer::kOutput, piece, 1});
  }
  const Schedule schedule = std::move(flow).Build();
  ASSERT_EQ(schedule.steps.size(), 2 * kPieces);
  for (size_t piece = 0; piece < kPieces; ++piece) {
    const auto recv = static_cast<StepId>(2 * piece), send = recv + 1;
    EXPECT_EQ(schedule.After(recv).size(), piece < kHeld ? 0u : 1u) << piece;
    if (piece >= kHeld) {
      EXPECT_TRUE(Waits(schedule, recv, static_cast<StepId>(2 * (piece - kHeld)))) << piece;
    }
    EXPECT_EQ(schedule.After(send).size(), 1u) << "no receive in that stage";
    EXPECT_TRUE(Waits(schedule, send, recv)) << piece;
  }
}

// A piece that receives nothing in a stage does not count there.
TEST(Flow, OnlyPiecesThatReceiveAreCounted) {
  constexpr size_t kHeld = policy::kPiecesInStage;
  Flow flow(0, kHeld + 1);
  for (size_t piece = 0; piece < kHeld; ++piece) {
    flow.Enter(0);
    flow.Recv(1, {Buffer::kOutput, piece, 1});
    flow.Enter(1);
    flow.Enter(0);  // a piece without any
    flow.Enter(1);
  }
  flow.Enter(0);
  flow.Recv(1, {Buffer::kOutput, kHeld, 1});
  const Schedule schedule = std::move(flow).Build();
  EXPECT_TRUE(Waits(schedule, static_cast<StepId>(kHeld), 0));
  EXPECT_EQ(schedule.After(static_cast<StepId>(kHeld)).size(), 1u);
}

}  // namespace
}  // namespace cohort::comm::algorithms
