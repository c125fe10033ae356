#include "comm/rendezvous.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/time/clock.h"
#include "comm/communicator.h"
#include "comm/topology.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using cohort::testing::RunProcesses;

TEST(FileRendezvous, ValuesOfAnyBytesArriveWhole) {
  RunProcesses(2, [](int rank, int size, const std::string& folder) {
    auto board = FileRendezvous(folder + "/not/there/yet", rank, size);
    const std::string value = std::string("a\0b\n/", 5) + std::to_string(rank);
    ASSERT_EQ(board->Put("some/key of " + std::to_string(rank), value), absl::OkStatus());
    for (int peer = 0; peer < size; ++peer) {
      auto got = board->Get("some/key of " + std::to_string(peer), absl::Now() + absl::Seconds(10));
      ASSERT_TRUE(got.ok()) << got.status();
      EXPECT_EQ(*got, std::string("a\0b\n/", 5) + std::to_string(peer));
    }
    EXPECT_EQ(board->Put("some/key of " + std::to_string(rank), "again").code(),
              absl::StatusCode::kAlreadyExists);
  });
}

TEST(FileRendezvous, MissingKeyIsNamedAtTheDeadline) {
  RunProcesses(1, [](int rank, int size, const std::string& folder) {
    auto got = FileRendezvous(folder, rank, size)->Get("nobody", absl::Now() + absl::Milliseconds(30));
    EXPECT_EQ(got.status().code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_THAT(std::string(got.status().message()), ::testing::HasSubstr("nobody"));
  });
}

TEST(FileRendezvous, CreateWithoutTheOthersFailsInTime) {
  RunProcesses(1, [](int, int, const std::string& folder) {
    auto comm = Communicator::Create(FileRendezvous(folder, 0, 2), {.timeout = absl::Milliseconds(100)});
    EXPECT_EQ(comm.status().code(), absl::StatusCode::kDeadlineExceeded) << comm.status();
  });
}

TEST(Rendezvous, ImpossibleRanksAreRefused) {
  EXPECT_EQ(Communicator::Create(nullptr).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Communicator::Create(FileRendezvous("/tmp", 2, 2)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Topology, HostsAreNumberedByTheirLowestRank) {
  const Topology topology(3, {"b", "a", "b", "a", "c"});
  EXPECT_EQ(topology.num_hosts(), 3);
  EXPECT_EQ(topology.host(0), "b");
  EXPECT_EQ(topology.host_of(4), 2);
  EXPECT_EQ(topology.local_rank(), 1);
  EXPECT_THAT(topology.local_ranks(), ::testing::ElementsAre(1, 3));
  const Topology group = topology.Group({4, 3, 1}, 1);
  EXPECT_EQ(group.num_hosts(), 2);
  EXPECT_EQ(group.local_rank(), 0);
  EXPECT_THAT(group.local_ranks(), ::testing::ElementsAre(1, 2));
}

}  // namespace
}  // namespace cohort::comm
