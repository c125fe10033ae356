// Every operation on memory that no host can reach does to it what the host's communicator does to the host's: the same
// bytes everywhere, the same refusals.
#include "runtime/collectives/staged_communicator.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "comm/codec/quantized_collectives.h"
#include "comm/tokens/token_routing.h"
#include "runtime/collectives/over_device.h"
#include "runtime/collectives/same_hardware.h"
#include "runtime/ops/ops.h"
#include "runtime/tensor.h"
#include "tests/runtime/device/far_device.h"
#include "tests/support/ranks.h"

namespace cohort::runtime {
namespace {

using comm::Communicator;
using comm::Work;

constexpr int kRanks = 3;
constexpr int64_t kElements = 3000;

std::shared_ptr<Communicator> Borrowed(Communicator& world) {
  return {&world, [](Communicator*) {}};
}

std::vector<float> Values(int rank) {
  std::vector<float> values(kElements);
  for (int64_t i = 0; i < kElements; ++i) values[i] = static_cast<float>((i * 37 + rank * 11) % 101) / 7;
  return values;
}

// Works on memory of kElements floats, whoever can reach it.
struct StagedCase {
  const char* name;
  std::function<std::vector<Work>(Communicator&, float*)> operate;
};
void PrintTo(const StagedCase& c, std::ostream* out) { *out << c.name; }

const std::vector<size_t> kCounts = {50, 0, 70};

std::vector<Work> One(Work work) { return {std::move(work)}; }

// To the next rank, from the one before.
template <typename Send, typename Recv>
std::vector<Work> Ring(Communicator& c, const Send& send, const Recv& recv) {
  return {send((c.rank() + 1) % kRanks), recv((c.rank() + kRanks - 1) % kRanks)};
}

comm::Datatype Columns() {
  return *comm::Datatype::Vector(20, 3, 5, comm::Datatype::Element(DataType::kF32));
}

std::vector<StagedCase> StagedCases() {
  constexpr DataType kType = DataType::kF32;
  constexpr comm::ReduceOp kSum = comm::ReduceOp::kSum;
  const comm::QuantizedOptions int8 = {.codec = comm::CodecKind::kInt8};
  const auto own = [](Communicator& c) {
    return std::accumulate(kCounts.begin(), kCounts.begin() + c.rank(), size_t{0});
  };
  return {
      {"all_reduce",
       [=](Communicator& c, float* m) { return One(c.AllReduce(m, m + 1000, 500, kType, kSum)); }},
      {"all_reduce_in_place",
       [=](Communicator& c, float* m) { return One(c.AllReduce(m, m, 500, kType, comm::ReduceOp::kMax)); }},
      {"nothing", [=](Communicator& c, float* m) { return One(c.AllReduce(m, m, 0, kType, kSum)); }},
      {"reduce_scatter",
       [=](Communicator& c, float* m) { return One(c.ReduceScatter(m, m + 1000, kCounts, kType, kSum)); }},
      {"all_gather",
       [=](Communicator& c, float* m) { return One(c.AllGather(m, m + 1000, kCounts, kType)); }},
      {"all_gather_in_place",
       [=](Communicator& c, float* m) { return One(c.AllGather(m + own(c), m, kCounts, kType)); }},
      {"broadcast", [=](Communicator& c, float* m) { return One(c.Broadcast(m + 3, 100, kType, 1)); }},
      {"reduce", [=](Communicator& c, float* m) { return One(c.Reduce(m, m + 1000, 100, kType, 2, kSum)); }},
      {"reduce_in_place",
       [=](Communicator& c, float* m) { return One(c.Reduce(m, m, 100, kType, 2, kSum)); }},
      {"gather", [=](Communicator& c, float* m) { return One(c.Gather(m, m + 1000, kCounts, kType, 0)); }},
      {"gather_in_place",
       [=](Communicator& c, float* m) { return One(c.Gather(m + own(c), m, kCounts, kType, 2)); }},
      {"scatter", [=](Communicator& c, float* m) { return One(c.Scatter(m, m + 1000, kCounts, kType, 0)); }},
      {"scatter_in_place",
       [=](Communicator& c, float* m) { return One(c.Scatter(m, m + own(c), kCounts, kType, 2)); }},
      {"all_to_all", [=](Communicator& c, float* m) { return One(c.AllToAll(m, m + 1000, 40, kType)); }},
      {"all_to_all_v",
       [=](Communicator& c, float* m) {
         std::vector<size_t> to, from;
         for (int peer = 0; peer < kRanks; ++peer) {
           to.push_back(static_cast<size_t>(c.rank() * 10 + peer));
           from.push_back(static_cast<size_t>(peer * 10 + c.rank()));
         }
         return One(c.AllToAllV(m, to, m + 1000, from, kType));
       }},
      {"all_to_all_matrix",
       [=](Communicator& c, float* m) {
         const std::vector<size_t> counts = {1, 20, 0, 7, 3, 11, 0, 0, 9};
         return One(c.AllToAllMatrix(m, m + 1000, counts, kType));
       }},
      {"messages",
       [=](Communicator& c, float* m) {
         return Ring(
             c, [&](int peer) { return c.Send(m, 300, kType, peer, 4); },
             [&](int peer) { return c.Recv(m + 1000, 300, kType, peer, 4); });
       }},
      {"datatypes",
       [=](Communicator& c, float* m) {
         return Ring(
             c, [&](int peer) { return c.Send(m + 2, 4, Columns(), peer, 4); },
             [&](int peer) { return c.Recv(m + 1000, 4, Columns(), peer, 4); });
       }},
      {"quantized_all_reduce",
       [=](Communicator& c, float* m) { return One(QuantizedAllReduce(c, m, m, 500, kType, int8)); }},
      {"quantized_reduce_scatter",
       [=](Communicator& c, float* m) {
         return One(QuantizedReduceScatter(c, m, m + 1000, kCounts, kType, int8));
       }},
      {"quantized_all_gather",
       [=](Communicator& c, float* m) {
         return One(QuantizedAllGather(c, m + own(c), m, kCounts, kType, int8));
       }},
      {"quantized_all_to_all",
       [=](Communicator& c, float* m) { return One(QuantizedAllToAll(c, m, m + 1000, 40, kType, int8)); }},
  };
}

class Staged : public ::testing::TestWithParam<StagedCase> {};

TEST_P(Staged, DoesWhatTheHostsDoes) {
  cohort::testing::RunRanks(kRanks, [](Communicator& world) {
    Device& far = FarDevice();
    const auto over = OverDevice(far, Borrowed(world));
    ASSERT_TRUE(over.ok()) << over.status();
    std::vector<float> want = Values(world.rank());
    for (const Work& work : GetParam().operate(world, want.data())) {
      ASSERT_TRUE(work.Wait().ok()) << work.Wait();
    }
    // Values that are late: made by what is enqueued before the call.
    const Tensor memory = Tensor::FromHost(far, {kElements}, Values(world.rank()));
    far.ops().Scale(memory, 2);
    far.ops().Scale(memory, 0.5);
    const std::vector<Work> works = GetParam().operate(**over, memory.data<float>());
    for (const Work& work : works) {
      ASSERT_TRUE(work.Wait().ok()) << work.Wait();
      EXPECT_TRUE(work.Done());
      ASSERT_TRUE(work.Wait().ok()) << "the second time";
    }
    const Tensor host = OnHost(memory);
    EXPECT_EQ(std::memcmp(host.raw(), want.data(), host.bytes()), 0)
        << "other bytes on rank " << world.rank();
  });
}

INSTANTIATE_TEST_SUITE_P(All, Staged, ::testing::ValuesIn(StagedCases()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(OverDeviceTest, IsTheHostsOwnWhereMemoryIsTheHosts) {
  const std::shared_ptr<Communicator> alone = Communicator::Single();
  EXPECT_EQ(*OverDevice(CpuDevice(), alone), alone);
  EXPECT_EQ(ThroughHost(ReferenceDevice(), alone), alone);
}

TEST(OverDeviceTest, RefusesWhatTheHostsRefuses) {
  cohort::testing::RunRanks(2, [](Communicator& world) {
    const auto over = *OverDevice(FarDevice(), Borrowed(world));
    const Tensor x = Tensor::Zeros(FarDevice(), {64}, DataType::kF32);
    const std::vector<size_t> wrong = {1, 2, 3}, counts = {3, 4}, huge = {SIZE_MAX / 2, SIZE_MAX / 2};
    const auto refused = [](const Work& work) {
      EXPECT_EQ(work.Wait().code(), absl::StatusCode::kInvalidArgument) << work.Wait();
    };
    refused(over->ReduceScatter(x.raw(), x.raw(), counts, DataType::kF32));
    refused(over->AllGather(x.raw(), x.raw(), wrong, DataType::kF32));
    refused(over->AllGather(x.raw(), x.raw(), huge, DataType::kF32));
    refused(over->AllReduce(nullptr, nullptr, 4, DataType::kF32));
    refused(over->AllToAll(x.raw(), x.raw(), 4, DataType::kF32));
    refused(over->AllToAllMatrix(x.raw(), x.raw(), wrong, DataType::kF32));
    refused(over->Send(x.raw(), 4, DataType::kF32, 7));
    refused(QuantizedReduceScatter(*over, x.raw(), x.raw(), counts, DataType::kF32, {}));
    const std::vector<int32_t> none, where = {0, 1};
    const auto routing = comm::TokenRouting::Create(
        world, {.experts = absl::MakeConstSpan(none), .k = 1, .weights = {}, .rank_of_expert = where});
    ASSERT_TRUE(routing.ok()) << routing.status();
    EXPECT_TRUE(absl::IsUnimplemented(over->MoveTokens({}).Wait()));
  });
}

TEST(OverDeviceTest, WhatNobodyWaitsForDisturbsNothing) {
  cohort::testing::RunRanks(2, [](Communicator& world) {
    const auto over = *OverDevice(FarDevice(), Borrowed(world));
    const Tensor x = Tensor::FromHost(FarDevice(), {2}, std::vector<float>{1, 2});
    { const Work dropped = over->AllReduce(x.raw(), x.raw(), 2, DataType::kF32); }
    ASSERT_TRUE(over->AllReduce(x.raw(), x.raw(), 2, DataType::kF32).Wait().ok());
    EXPECT_EQ(ToHost(x), (std::vector<double>{2, 4}));
  });
}

TEST(OverDeviceTest, AnErrorReachesWhoWaits) {
  cohort::testing::RunRanks(2, [](Communicator& world) {
    const auto over = *OverDevice(FarDevice(), Borrowed(world));
    const Tensor x = Tensor::Zeros(FarDevice(), {4}, DataType::kF32);
    const Work work = over->Recv(x.raw(), 4, DataType::kF32, 1 - world.rank(), 9);
    over->Abort(absl::CancelledError("enough"));
    EXPECT_FALSE(work.Wait().ok());
  });
}

TEST(OverDeviceTest, ARankThatCannotConnectItsDeviceSendsAllThroughTheHost) {
  cohort::testing::RunRanks(kRanks, [](Communicator& world) {
    SetConnectFar([&](std::shared_ptr<Communicator>) -> absl::StatusOr<std::unique_ptr<Communicator>> {
      if (world.rank() == 1) return absl::UnavailableError("no cable");
      return Communicator::Single();
    });
    const auto over = OverDevice(FarDevice(), Borrowed(world));
    ASSERT_TRUE(over.ok()) << over.status();
    const Tensor x = Tensor::FromHost(FarDevice(), {1}, std::vector<float>{1});
    ASSERT_TRUE((*over)->AllReduce(x.raw(), x.raw(), 1, DataType::kF32).Wait().ok());
    EXPECT_EQ(ToHost(x), std::vector<double>{kRanks});
  });
}

// What the devices have for the group is asked for in Connect, and used from then on.
TEST(OverDeviceTest, LinksCanBePutOff) {
  cohort::testing::RunRanks(2, [](Communicator& world) {
    int made = 0;
    SetConnectFar([&](std::shared_ptr<Communicator>) -> absl::StatusOr<std::unique_ptr<Communicator>> {
      ++made;
      return Communicator::Single();
    });
    LaterLinks links;
    absl::StatusOr<std::shared_ptr<Communicator>> over;
    {
      const LaterLinks::Scope scope(links);
      over = OverDevice(FarDevice(), Borrowed(world));
    }
    ASSERT_TRUE(over.ok()) << over.status();
    EXPECT_EQ(made, 0);
    const Tensor x = Tensor::FromHost(FarDevice(), {1}, std::vector<float>{1});
    ASSERT_TRUE((*over)->AllReduce(x.raw(), x.raw(), 1, DataType::kF32).Wait().ok());
    EXPECT_EQ(ToHost(x), std::vector<double>{2}) << "by way of the host";
    ASSERT_TRUE(links.Connect().ok());
    EXPECT_EQ(made, 1);
    ASSERT_TRUE(links.Connect().ok());
    EXPECT_EQ(made, 1) << "once";
    ASSERT_TRUE(OverDevice(FarDevice(), Borrowed(world)).ok());
    EXPECT_EQ(made, 2) << "at once";
  });
}

TEST(OverDeviceTest, RanksThatHaveOneDeviceBetweenThemGoThroughTheHost) {
  cohort::testing::RunRanks(kRanks, [](Communicator& world) {
    EXPECT_EQ(*RanksOfSameHardware(FarDevice(), world), 1);
    EXPECT_EQ(*RanksOfSameHardware(CpuDevice(), world), kRanks) << "all ranks of a host have its memory";
    SetConnectFar(
        [](std::shared_ptr<Communicator>) -> absl::StatusOr<std::unique_ptr<Communicator>> {
          ADD_FAILURE() << "one device has no links to itself";
          return Communicator::Single();
        },
        world.rank() == 0 ? "card 0" : "card 1");
    EXPECT_EQ(*RanksOfSameHardware(FarDevice(), world), world.rank() == 0 ? 1 : 2);
    const auto over = OverDevice(FarDevice(), Borrowed(world));
    ASSERT_TRUE(over.ok()) << over.status();
    const Tensor x = Tensor::FromHost(FarDevice(), {1}, std::vector<float>{1});
    ASSERT_TRUE((*over)->AllReduce(x.raw(), x.raw(), 1, DataType::kF32).Wait().ok());
    EXPECT_EQ(ToHost(x), std::vector<double>{kRanks});
  });
}

}  // namespace
}  // namespace cohort::runtime
