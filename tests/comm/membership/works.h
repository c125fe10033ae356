// Whether a group works, after whatever has become of it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "comm/communicator.h"

namespace cohort::comm {

inline constexpr size_t kSmall = 16;
inline constexpr size_t kLarge = 200'000;

// All collectives give what they should among the present members.
inline void ExpectWorks(Communicator& comm) {
  for (const size_t count : {kSmall, kLarge}) {
    std::vector<int64_t> data(count, comm.rank() + 1), gathered(count * comm.size());
    ASSERT_EQ(comm.AllReduce(data.data(), data.data(), count, DataType::kI64).Wait(), absl::OkStatus());
    EXPECT_EQ(data, std::vector<int64_t>(count, comm.size() * (comm.size() + 1) / 2));
    std::fill(data.begin(), data.end(), comm.rank());
    const std::vector<size_t> counts(comm.size(), count);
    ASSERT_EQ(comm.AllGather(data.data(), gathered.data(), counts, DataType::kI64).Wait(), absl::OkStatus());
    for (int rank = 0; rank < comm.size(); ++rank) {
      EXPECT_EQ(gathered[rank * count], rank);
      EXPECT_EQ(gathered[(rank + 1) * count - 1], rank);
    }
    ASSERT_EQ(comm.Broadcast(data.data(), count, DataType::kI64, comm.size() - 1).Wait(), absl::OkStatus());
    EXPECT_EQ(data, std::vector<int64_t>(count, comm.size() - 1));
  }
  ASSERT_EQ(comm.Barrier().Wait(), absl::OkStatus());
}

}  // namespace cohort::comm
