// Attention over real processes beside the plain operation on one rank, forward and backward.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "absl/strings/str_cat.h"
#include "parallel/sequence/context_attention.h"
#include "parallel/sequence/hybrid_batches.h"
#include "runtime/ops/ops.h"
#include "tests/support/ranks.h"

namespace cohort::parallel {
namespace {

using runtime::Device;
using runtime::Tensor;

constexpr SplitKind kCoreKinds[] = {SplitKind::kContiguous, SplitKind::kZigzag, SplitKind::kStriped};
constexpr double kCoreScale = 0.3;

struct HeadNumbers {
  int64_t queries, keys, width;
};

// The whole batch, its attention and gradients in f64 on one rank.
struct WholeAttention {
  WholeAttention(const std::vector<int64_t>& lengths, const HeadNumbers& heads) {
    std::vector<int32_t> offsets = {0};
    for (const int64_t length : lengths) offsets.push_back(offsets.back() + static_cast<int32_t>(length));
    const int64_t t = offsets.back();
    std::mt19937 random(11);
    const auto normal = [&](int64_t h) {
      std::normal_distribution<double> distribution;
      std::vector<double> values(t * h * heads.width);
      // What f32 can hold, so that both devices get the same.
      for (double& value : values) value = static_cast<float>(distribution(random));
      return Tensor::FromHost(device, {t, h, heads.width}, DataType::kF64, values);
    };
    q = normal(heads.queries), k = normal(heads.keys), v = normal(heads.keys), dy = normal(heads.queries);
    y = Empty(q), dq = Empty(q), dk = Empty(k), dv = Empty(v);
    const Tensor lse = Tensor::Empty(device, {heads.queries, t}, DataType::kF64);
    const Tensor bounds =
        Tensor::FromHost(device, {static_cast<int64_t>(offsets.size())}, absl::MakeConstSpan(offsets));
    device.ops().Attention(q, k, v, bounds, kCoreScale, y, lse);
    device.ops().AttentionGrad(dy, q, k, v, y, lse, bounds, kCoreScale, dq, dk, dv);
  }
  static Tensor Empty(const Tensor& like) { return Tensor::Empty(like.device(), like.shape(), like.dtype()); }

  Device& device = runtime::ReferenceDevice();
  Tensor q, k, v, dy, y, dq, dk, dv;
};

// This rank's rows of a tensor of the whole batch.
Tensor PickRows(const Tensor& whole, const std::vector<int32_t>& places, Device& device, DataType dtype) {
  const int64_t row = whole.dim(1) * whole.dim(2);
  std::vector<double> values;
  for (const int32_t place : places) {
    values.insert(values.end(), whole.data<double>() + place * row, whole.data<double>() + (place + 1) * row);
  }
  return Tensor::FromHost(device, {static_cast<int64_t>(places.size()), whole.dim(1), whole.dim(2)}, dtype,
                          values);
}

void ExpectRows(const Tensor& got, const Tensor& whole, const std::vector<int32_t>& places, double tolerance,
                const std::string& what) {
  const std::vector<double> want =
                                ToHost(PickRows(whole, places, runtime::ReferenceDevice(), DataType::kF64)),
                            have = ToHost(got);
  double largest = 1e-3, worst = 0;
  for (const double value : ToHost(whole)) largest = std::max(largest, std::abs(value));
  ASSERT_EQ(have.size(), want.size()) << what;
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_TRUE(std::isfinite(have[i])) << what;
    worst = std::max(worst, std::abs(have[i] - want[i]));
  }
  ASSERT_LT(worst, tolerance * largest) << what;
}

// `places`: of this rank's tokens in the whole batch.
void CheckCore(runtime::AttentionCore& core, const WholeAttention& whole, const std::vector<int32_t>& places,
               Device& device, const std::string& what) {
  const bool reference = device.kind() == runtime::DeviceKind::kReference;
  const DataType dtype = reference ? DataType::kF64 : DataType::kF32;
  const double tolerance = reference ? 1e-12 : 1e-5;
  const Tensor q = PickRows(whole.q, places, device, dtype), k = PickRows(whole.k, places, device, dtype),
               v = PickRows(whole.v, places, device, dtype), dy = PickRows(whole.dy, places, device, dtype);
  const auto inference = core.Forward(q, k, v, kCoreScale, nullptr);
  ASSERT_TRUE(inference.ok()) << inference.status() << what;
  ExpectRows(*inference, whole.y, places, tolerance, absl::StrCat("y of inference, ", what));
  std::unique_ptr<runtime::AttentionCore::Saved> saved;
  const auto y = core.Forward(q, k, v, kCoreScale, &saved);
  ASSERT_TRUE(y.ok()) << y.status() << what;
  ExpectRows(*y, whole.y, places, tolerance, absl::StrCat("y, ", what));
  const Tensor dq = WholeAttention::Empty(q), dk = WholeAttention::Empty(k), dv = WholeAttention::Empty(v);
  for (const Tensor& gradient : {dq, dk, dv}) device.ops().Fill(gradient, 1e6);  // must not survive
  const absl::Status status = core.Backward(dy, *saved, dq, dk, dv);
  ASSERT_TRUE(status.ok()) << status << what;
  ExpectRows(dq, whole.dq, places, tolerance, absl::StrCat("dq, ", what));
  ExpectRows(dk, whole.dk, places, tolerance, absl::StrCat("dk, ", what));
  ExpectRows(dv, whole.dv, places, tolerance, absl::StrCat("dv, ", what));
}

std::shared_ptr<comm::Communicator> Unowned(comm::Communicator& world) {
  return std::shared_ptr<comm::Communicator>(&world, [](comm::Communicator*) {});
}

// Every way with so many head parts that they divide ranks and heads.
void CheckAllWays(comm::Communicator& world, const std::vector<int64_t>& lengths, const HeadNumbers& heads,
                  Device& device) {
  runtime::SetCpuThreads(1);
  const WholeAttention whole(lengths, heads);
  const ContextGroup group = WholeGroup(Unowned(world));
  for (const SplitKind kind : kCoreKinds) {
    const auto split = TokenSplit::Create(kind, world.size(), lengths);
    for (int parts = 1; parts <= world.size(); ++parts) {
      if (world.size() % parts != 0 || heads.queries % parts != 0) continue;
      for (const Moves forward : {Moves::kKeysAndValues, Moves::kQueries}) {
        const Moves backward = forward;
        const ContextWays ways = {{forward, parts}, {backward, parts}};
        const auto core = MakeContextAttention(group, *split, ways, device);
        ASSERT_TRUE(core.ok()) << core.status();
        CheckCore(**core, whole, split->Places(world.rank()), device,
                  absl::StrCat(DebugString(ways.forward, world.size()), ", ", Name(kind), ", rank ",
                               world.rank(), " of ", world.size(), ", ", heads.queries, " heads on ",
                               heads.keys, " on ", device.name()));
        if (::testing::Test::HasFatalFailure() || parts == world.size()) break;
      }
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

const std::vector<int64_t> kCoreLengths = {19, 0, 3, 1, 14, 6};

TEST(AttentionCore, EveryWayIsTheSameMathematicsInDoublePrecision) {
  for (const int ranks : {1, 2, 3, 4}) {
    testing::RunRanks(ranks, [](comm::Communicator& world) {
      CheckAllWays(world, kCoreLengths, {12, 4, 4}, runtime::ReferenceDevice());
      CheckAllWays(world, kCoreLengths, {4, 1, 4}, runtime::ReferenceDevice());
      CheckAllWays(world, {1, 2}, {4, 4, 4}, runtime::ReferenceDevice());  // ranks without a token
      CheckAllWays(world, {}, {4, 2, 4}, runtime::ReferenceDevice());
    });
  }
}

TEST(AttentionCore, EveryWayIsTheSameMathematicsInFloat) {
  for (const int ranks : {2, 3, 4}) {
    testing::RunRanks(ranks, [](comm::Communicator& world) {
      CheckAllWays(world, {90, 0, 3, 1, 40, 10}, {12, 4, 16}, runtime::CpuDevice());
      CheckAllWays(world, {1, 2}, {4, 2, 16}, runtime::CpuDevice());
    });
  }
}

TEST(AttentionCore, PassesMayMoveDifferentThings) {
  testing::RunRanks(3, [](comm::Communicator& world) {
    const WholeAttention whole(kCoreLengths, {4, 2, 4});
    const auto split = TokenSplit::Create(SplitKind::kZigzag, 3, kCoreLengths);
    for (const Moves forward : {Moves::kKeysAndValues, Moves::kQueries}) {
      const Moves backward = forward == Moves::kQueries ? Moves::kKeysAndValues : Moves::kQueries;
      const auto core = MakeContextAttention(WholeGroup(Unowned(world)), *split,
                                             {{forward, 1}, {backward, 1}}, runtime::ReferenceDevice());
      CheckCore(**core, whole, split->Places(world.rank()), runtime::ReferenceDevice(), "mixed passes");
    }
  });
}

TEST(AttentionCore, GroupsOfHybridBatchesNeedNoCommunicatorsOfTheirOwn) {
  testing::RunRanks(4, [](comm::Communicator& world) {
    const std::vector<int64_t> lengths = {50, 5, 7, 33, 12, 1, 20};
    const auto plan = PlanHybridBatches(lengths, 4, 16, {1, 0.1, 0, 0});
    ASSERT_TRUE(plan.ok()) << plan.status();
    for (const int index : plan->Of(world.rank())) {
      const HybridMicroBatch& batch = plan->micro_batches[index];
      ContextGroup group{Unowned(world), {}, world.rank() - batch.first_rank};
      for (int rank = 0; rank < batch.ranks; ++rank) group.members.push_back(batch.first_rank + rank);
      std::vector<int64_t> own;
      for (const int64_t s : batch.sequences) own.push_back(lengths[s]);
      const WholeAttention whole(own, {4, 2, 4});
      const auto split = plan->Split(index, SplitKind::kZigzag, lengths);
      for (const int parts : {1, batch.ranks}) {
        if (4 % parts != 0) continue;
        const auto core = MakeContextAttention(
            group, *split, {{Moves::kKeysAndValues, parts}, {Moves::kKeysAndValues, parts}},
            runtime::ReferenceDevice());
        ASSERT_TRUE(core.ok()) << core.status();
        CheckCore(**core, whole, split->Places(group.rank), runtime::ReferenceDevice(),
                  absl::StrCat("micro-batch ", index));
      }
    }
  });
}

TEST(AttentionCore, ALostRankIsAnErrorOnTheOthers) {
  testing::RunRanks(3,
                    [](comm::Communicator& world) {
                      const auto split = TokenSplit::Create(SplitKind::kStriped, 3, {64});
                      const auto core = MakeContextAttention(WholeGroup(Unowned(world)), *split, {},
                                                             runtime::ReferenceDevice());
                      const Tensor x = Tensor::Zeros(runtime::ReferenceDevice(),
                                                     {split->tokens(world.rank()), 2, 4}, DataType::kF64);
                      absl::Status status;
                      for (int round = 0; round < 1000 && status.ok(); ++round) {
                        if (world.rank() == 1 && round == 5) kill(getpid(), SIGKILL);
                        status = (*core)->Forward(x, x, x, 1, nullptr).status();
                      }
                      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
                      EXPECT_NE(status.message().find("rank 1"), std::string::npos) << status;
                    },
                    {.victims = {1}});
}

TEST(AttentionCore, WhatDoesNotFitIsRefused) {
  const ContextGroup alone = WholeGroup(comm::Communicator::Single());
  Device& device = runtime::ReferenceDevice();
  EXPECT_NE(MakeContextAttention(alone, *TokenSplit::Create(SplitKind::kZigzag, 2, {8}), {}, device)
                .status()
                .message()
                .find("split over 2 ranks for a context group of 1"),
            std::string::npos);
  EXPECT_FALSE(MakeContextAttention(alone, *TokenSplit::Create(SplitKind::kZigzag, 1, {8}),
                                    {{Moves::kQueries, 2}, {}}, device)
                   .ok());
  testing::RunRanks(2, [](comm::Communicator& world) {
    const AttentionWay ulysses = {Moves::kKeysAndValues, 2};
    const auto split = TokenSplit::Create(SplitKind::kZigzag, 2, {8});
    const auto core = MakeContextAttention(WholeGroup(Unowned(world)), *split, {ulysses, ulysses},
                                           runtime::ReferenceDevice());
    const Tensor x = Tensor::Zeros(runtime::ReferenceDevice(), {4, 3, 4}, DataType::kF64);
    const auto y = (*core)->Forward(x, x, x, 1, nullptr);
    EXPECT_NE(y.status().message().find("must divide the 3 query heads"), std::string::npos) << y.status();
  });
}

TEST(BatchOfRank, KeepsTokensTargetsAndPositionsTogether) {
  Device& device = runtime::CpuDevice();
  const std::vector<int32_t> tokens = {10, 11, 12, 13, 14, 20, 21}, targets = {11, 12, 13, 14, -1, 21, -1};
  runtime::TokenBatch whole;
  whole.tokens = Tensor::FromHost(device, {7}, absl::MakeConstSpan(tokens));
  whole.targets = Tensor::FromHost(device, {7}, absl::MakeConstSpan(targets));
  whole.host_offsets = {0, 5, 7};
  const auto split = TokenSplit::Create(SplitKind::kStriped, 2, {5, 2});
  const runtime::TokenBatch batch = BatchOfRank(whole, *split, 0);
  EXPECT_EQ(ToHost(batch.tokens), (std::vector<double>{10, 12, 14, 21}));
  EXPECT_EQ(ToHost(batch.targets), (std::vector<double>{11, 13, -1, -1}));
  EXPECT_EQ(ToHost(batch.positions), (std::vector<double>{0, 2, 4, 1}));
  EXPECT_EQ(batch.host_offsets, (std::vector<int32_t>{0, 3, 4}));
}

}  // namespace
}  // namespace cohort::parallel
