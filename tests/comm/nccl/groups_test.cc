// Device communicators whose groups are split and edited.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdlib.h>

#include <string>
#include <vector>

#include "comm/membership/join_board.h"
#include "tests/comm/nccl/device_ranks.h"

namespace cohort::comm::nccl {
namespace {

int64_t SumOfOnes(Communicator& device) {
  int64_t one = 1, sum = 0;
  const absl::Status status = device.AllReduce(&one, &sum, 1, DataType::kI64).Wait();
  EXPECT_EQ(status, absl::OkStatus());
  return sum;
}

TEST(DeviceGroups, SplitAndEndOnTheirOwn) {
  RunDeviceRanks(4, {}, [](Rig& rig) {
    auto part = rig.device->Split(rig.rank() == 3 ? -1 : rig.rank() % 2, -rig.rank());
    ASSERT_TRUE(part.ok()) << part.status();
    if (rig.rank() == 3) {
      EXPECT_EQ(*part, nullptr);
    } else {
      EXPECT_EQ((*part)->size(), rig.rank() == 1 ? 1 : 2);
      EXPECT_EQ((*part)->rank(), rig.rank() == 0 ? 1 : 0);
      EXPECT_EQ(SumOfOnes(**part), rig.rank() == 1 ? 1 : 2);
    }
    part->reset();
    EXPECT_EQ(SumOfOnes(*rig.device), 4);
  });
}

TEST(DeviceGroups, AreMadeAnewAfterAnEditOfTheBase) {
  RunDeviceRanks(4, {}, [](Rig& rig) {
    EXPECT_EQ(SumOfOnes(*rig.device), 4);
    const bool leaves = rig.rank() == 1;
    const auto change = rig.base->Shrink({.leave = leaves});
    ASSERT_TRUE(change.ok()) << change.status();
    if (leaves) return;
    int64_t one = 1;
    const absl::Status stale = rig.device->AllReduce(&one, &one, 1, DataType::kI64).Wait();
    EXPECT_EQ(stale.code(), absl::StatusCode::kFailedPrecondition) << stale;
    EXPECT_THAT(std::string(stale.message()), ::testing::HasSubstr("Renew"));
    ASSERT_EQ(rig.device->Renew(), absl::OkStatus());
    EXPECT_EQ(rig.device->size(), 3);
    EXPECT_EQ(SumOfOnes(*rig.device), 3);
  });
}

TEST(DeviceGroups, GoOnWithoutWhoLeaves) {
  RunDeviceRanks(3, {.create = false}, [](Rig& rig) {
    // Two of the three are a group of their own.
    auto two = rig.base->Split(rig.rank() < 2 ? 0 : 1, rig.rank());
    ASSERT_TRUE(two.ok()) << two.status();
    std::shared_ptr<Communicator> group = *std::move(two);
    auto made = DeviceCommunicator::Create(group, rig.options, *rig.fake);
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_EQ(SumOfOnes(**made), rig.rank() < 2 ? 2 : 1);
    if (rig.rank() < 2) {
      const auto change = (*made)->Shrink({.leave = rig.rank() == 1});
      ASSERT_TRUE(change.ok()) << change.status();
      if (rig.rank() == 1) {
        EXPECT_EQ(change->rank, -1);
        int64_t one = 1;
        const absl::Status gone = (*made)->AllReduce(&one, &one, 1, DataType::kI64).Wait();
        EXPECT_EQ(gone.code(), absl::StatusCode::kFailedPrecondition) << gone;
      } else {
        EXPECT_EQ(SumOfOnes(**made), 1);
      }
    }
    ASSERT_EQ(rig.base->Barrier().Wait(), absl::OkStatus());
  });
}

// A process that was not there from the start is taken in, over its own NCCL communicator.
TEST(DeviceGroups, TakeInNewcomers) {
  cohort::testing::RunProcesses(3, [](int rank, int, const std::string& folder) {
    FakeNccl fake(folder);
    DeviceOptions options;
    options.stream = *fake.CreateStream();
    const auto board = FolderJoinBoard(folder + "/board");
    if (rank == 2) {
      auto joined = Communicator::Join(board, {.timeout = absl::Seconds(20)});
      ASSERT_TRUE(joined.ok()) << joined.status();
      auto device = DeviceCommunicator::Create(*std::move(joined), options, fake);
      ASSERT_TRUE(device.ok()) << device.status();
      EXPECT_EQ(SumOfOnes(**device), 3);
      return;
    }
    auto base =
        Communicator::Create(FileRendezvous(folder + "/meet", rank, 2), {.timeout = absl::Seconds(20)});
    ASSERT_TRUE(base.ok()) << base.status();
    auto device = DeviceCommunicator::Create(*std::move(base), options, fake);
    ASSERT_TRUE(device.ok()) << device.status();
    EXPECT_EQ(SumOfOnes(**device), 2);
    while ((*device)->size() < 3) {
      const auto change = (*device)->Grow(board, {});
      ASSERT_TRUE(change.ok()) << change.status();
    }
    EXPECT_EQ(SumOfOnes(**device), 3);
  });
}

// Hosts that really exchange over UCX.
TEST(DeviceGroups, OverTheNetwork) {
  cohort::testing::RunProcesses(4, [](int rank, int size, const std::string& folder) {
    setenv("COHORT_HOST_ID", rank < 2 ? "host-a" : "host-b", 1);
    FakeNccl fake(folder);
    DeviceOptions options;
    options.stream = *fake.CreateStream();
    auto base =
        Communicator::Create(FileRendezvous(folder + "/meet", rank, size), {.timeout = absl::Seconds(30)});
    ASSERT_TRUE(base.ok()) << base.status();
    ASSERT_EQ((*base)->topology().num_hosts(), 2);
    const std::shared_ptr<Communicator> shared = *std::move(base);
    // As measured, and each way.
    for (const std::optional<Way> way :
         {std::optional<Way>(), std::optional(Way::kNccl), std::optional(Way::kHosts)}) {
      options.way = way;
      auto device = DeviceCommunicator::Create(shared, options, fake);
      ASSERT_TRUE(device.ok()) << device.status();
      std::vector<float> data((1 << 20) + 1, static_cast<float>(rank));
      ASSERT_EQ((*device)->AllReduce(data.data(), data.data(), data.size(), DataType::kF32).Wait(),
                absl::OkStatus());
      EXPECT_THAT(data, ::testing::Each(6));
    }
  });
}

}  // namespace
}  // namespace cohort::comm::nccl
