// Continuous joining and leaving: whatever happened, all members have the same results.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "comm/communicator.h"
#include "comm/membership/join_board.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using cohort::testing::RankOptions;
using cohort::testing::RunProcesses;
using cohort::testing::SharedCounter;

// Sums that depend on the order of additions: equal bits are no accident.
std::vector<float> Operand(int rank, size_t count, uint32_t seed) {
  std::vector<float> data(count);
  for (size_t i = 0; i < count; ++i) {
    data[i] = 1.0f / static_cast<float>(1 + (i * 7 + static_cast<size_t>(rank) * 13 + seed) % 101);
  }
  return data;
}

uint64_t Hash(const std::vector<float>& data, uint64_t hash) {
  for (const float value : data) {
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    hash = (hash ^ bits) * 0x100000001b3ull;
  }
  return hash;
}

// Members of each epoch compare a hash of all results since they met. One leaves in every epoch, the one that has
// been there longest, and comes back as a newcomer.
TEST(Churn, JoiningAndLeavingWithoutDivergence) {
  static constexpr int kProcesses = 4, kMembers = 3, kCallsAnEpoch = 8;
  // COHORT_CHURN_EPOCHS=2500 makes twenty thousand collectives.
  const char* wish = std::getenv("COHORT_CHURN_EPOCHS");
  const uint32_t epochs = wish == nullptr ? 12 : static_cast<uint32_t>(std::atoi(wish));
  SharedCounter over;
  // Some 25 ms an epoch here, alone.
  const RankOptions options_of_ranks = {.limit = absl::Seconds(60) + epochs * absl::Milliseconds(200)};
  RunProcesses(
      kProcesses,
      [&](int process, int, const std::string& folder) {
        auto board = FolderJoinBoard(folder + "/board");
        const CommunicatorOptions options = {.timeout = absl::Seconds(20)};
        std::unique_ptr<Communicator> comm;
        if (process < kMembers) {
          auto created = Communicator::Create(FileRendezvous(folder + "/meet", process, kMembers), options);
          ASSERT_TRUE(created.ok()) << created.status();
          comm = *std::move(created);
        }
        for (;;) {
          if (comm == nullptr) {
            auto joined = Communicator::Join(board, {.timeout = absl::Seconds(1)});
            if (!joined.ok() && over.Get() > 0) return;  // nobody takes it in any more
            ASSERT_TRUE(joined.ok()) << joined.status();
            comm = *std::move(joined);
          }
          ASSERT_EQ(comm->size(), kMembers);
          uint64_t hash = comm->epoch();
          for (int call = 0; call < kCallsAnEpoch; ++call) {
            const size_t count = 1 + (comm->epoch() * 37 + call * 1009) % 5000;
            std::vector<float> data = Operand(comm->rank(), count, comm->epoch());
            ASSERT_EQ(comm->AllReduce(data.data(), data.data(), count, DataType::kF32).Wait(),
                      absl::OkStatus());
            hash = Hash(data, hash);
          }
          std::vector<uint64_t> all(kMembers);
          const std::vector<size_t> counts(kMembers, 1);
          ASSERT_EQ(comm->AllGather(&hash, all.data(), counts, DataType::kI64).Wait(), absl::OkStatus());
          ASSERT_EQ(all, std::vector<uint64_t>(kMembers, hash));
          if (comm->epoch() >= epochs) {
            over.Add();
            return;
          }
          const bool leaves = comm->rank() == 0;
          const auto change = comm->Grow(board, {.leave = leaves, .at_most = 1, .at_least = 1});
          ASSERT_TRUE(change.ok()) << change.status();
          if (leaves) comm.reset();
        }
      },
      options_of_ranks);
}

}  // namespace
}  // namespace cohort::comm
