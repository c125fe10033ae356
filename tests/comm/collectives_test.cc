// Every collective between real processes, for every data type.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "comm/communicator.h"
#include "comm/transport/shm/policy.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using cohort::testing::RunRanks;

// A small number that every data type holds exactly, different for rank and place.
template <typename T>
T Value(int rank, size_t i) {
  return T(static_cast<float>((rank * 3 + static_cast<int>(i % 5)) % 7));
}

template <typename T>
double AsDouble(T value) {
  return static_cast<double>(static_cast<float>(value));
}

template <typename T>
double ExpectedSum(int ranks, size_t i) {
  double sum = 0;
  for (int rank = 0; rank < ranks; ++rank) sum += AsDouble(Value<T>(rank, i));
  return sum;
}

template <typename T>
std::vector<T> Values(int rank, size_t first, size_t count) {
  std::vector<T> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = Value<T>(rank, first + i);
  return values;
}

template <typename T>
void CheckAllReduce(Communicator& comm, size_t count) {
  const std::vector<T> send = Values<T>(comm.rank(), 0, count);
  std::vector<T> recv(count), in_place = send;
  ASSERT_EQ(comm.AllReduce(send.data(), recv.data(), count, DataTypeOf<T>()).Wait(), absl::OkStatus());
  ASSERT_EQ(comm.AllReduce(in_place.data(), in_place.data(), count, DataTypeOf<T>()).Wait(),
            absl::OkStatus());
  for (size_t i = 0; i < count; ++i) {
    ASSERT_EQ(AsDouble(recv[i]), ExpectedSum<T>(comm.size(), i)) << i << " of " << count;
    ASSERT_EQ(AsDouble(in_place[i]), ExpectedSum<T>(comm.size(), i)) << i << " of " << count;
  }
}

// Uneven: rank r has (r + 1) * unit, and rank 1 nothing.
std::vector<size_t> Uneven(int ranks, size_t unit) {
  std::vector<size_t> counts(ranks);
  for (int rank = 0; rank < ranks; ++rank) counts[rank] = rank == 1 ? 0 : (rank + 1) * unit;
  return counts;
}

template <typename T>
void CheckReduceScatter(Communicator& comm, size_t unit) {
  const std::vector<size_t> counts = Uneven(comm.size(), unit);
  const size_t before = std::accumulate(counts.begin(), counts.begin() + comm.rank(), size_t{0});
  const size_t total = std::accumulate(counts.begin(), counts.end(), size_t{0});
  const std::vector<T> send = Values<T>(comm.rank(), 0, total);
  std::vector<T> recv(counts[comm.rank()] + 1, T(99));
  ASSERT_EQ(comm.ReduceScatter(send.data(), recv.data(), counts, DataTypeOf<T>()).Wait(), absl::OkStatus());
  for (size_t i = 0; i < counts[comm.rank()]; ++i) {
    ASSERT_EQ(AsDouble(recv[i]), ExpectedSum<T>(comm.size(), before + i)) << i;
  }
  ASSERT_EQ(AsDouble(recv.back()), 99);
}

template <typename T>
void CheckAllGather(Communicator& comm, size_t unit) {
  const std::vector<size_t> counts = Uneven(comm.size(), unit);
  const size_t before = std::accumulate(counts.begin(), counts.begin() + comm.rank(), size_t{0});
  const size_t total = std::accumulate(counts.begin(), counts.end(), size_t{0});
  const std::vector<T> send = Values<T>(comm.rank(), 0, counts[comm.rank()]);
  std::vector<T> recv(total), in_place(total);
  std::copy(send.begin(), send.end(), in_place.begin() + before);
  ASSERT_EQ(comm.AllGather(send.data(), recv.data(), counts, DataTypeOf<T>()).Wait(), absl::OkStatus());
  ASSERT_EQ(comm.AllGather(in_place.data() + before, in_place.data(), counts, DataTypeOf<T>()).Wait(),
            absl::OkStatus());
  size_t at = 0;
  for (int rank = 0; rank < comm.size(); ++rank) {
    for (size_t i = 0; i < counts[rank]; ++i, ++at) {
      ASSERT_EQ(AsDouble(recv[at]), AsDouble(Value<T>(rank, i))) << rank << " " << i;
      ASSERT_EQ(AsDouble(in_place[at]), AsDouble(Value<T>(rank, i))) << rank << " " << i;
    }
  }
}

template <typename T>
void CheckBroadcast(Communicator& comm, size_t count) {
  for (int root = 0; root < comm.size(); ++root) {
    std::vector<T> buffer = comm.rank() == root ? Values<T>(root, 0, count) : std::vector<T>(count);
    ASSERT_EQ(comm.Broadcast(buffer.data(), count, DataTypeOf<T>(), root).Wait(), absl::OkStatus());
    for (size_t i = 0; i < count; ++i) ASSERT_EQ(AsDouble(buffer[i]), AsDouble(Value<T>(root, i)));
  }
}

template <typename T>
void CheckReduce(Communicator& comm, size_t count) {
  for (int root = comm.size() - 1; root >= 0; root -= 3) {
    const bool is_root = comm.rank() == root;
    const std::vector<T> send = Values<T>(comm.rank(), 0, count);
    std::vector<T> recv(is_root ? count : 0), in_place = send;
    T* const target = is_root ? recv.data() : nullptr;  // elsewhere it is not looked at
    ASSERT_EQ(comm.Reduce(send.data(), target, count, DataTypeOf<T>(), root).Wait(), absl::OkStatus());
    ASSERT_EQ(comm.Reduce(in_place.data(), in_place.data(), count, DataTypeOf<T>(), root).Wait(),
              absl::OkStatus());
    for (size_t i = 0; i < count; ++i) {
      if (is_root) {
        ASSERT_EQ(AsDouble(recv[i]), ExpectedSum<T>(comm.size(), i)) << i;
      }
      ASSERT_EQ(AsDouble(in_place[i]), is_root ? ExpectedSum<T>(comm.size(), i) : AsDouble(send[i])) << i;
    }
  }
}

// To the root and back from there, apart and in place.
template <typename T>
void CheckGatherAndScatter(Communicator& comm, size_t unit) {
  const std::vector<size_t> counts = Uneven(comm.size(), unit);
  const size_t before = std::accumulate(counts.begin(), counts.begin() + comm.rank(), size_t{0});
  const size_t total = std::accumulate(counts.begin(), counts.end(), size_t{0});
  for (int root = comm.size() - 1; root >= 0; root -= 3) {
    const bool is_root = comm.rank() == root;
    const std::vector<T> send = Values<T>(comm.rank(), 0, counts[comm.rank()]);
    std::vector<T> all(is_root ? total : 0), in_place(is_root ? total : 0), back(send.size()), again = back;
    if (is_root) std::copy(send.begin(), send.end(), in_place.begin() + before);
    const T* const from = is_root ? in_place.data() + before : send.data();
    ASSERT_EQ(comm.Gather(send.data(), all.data(), counts, DataTypeOf<T>(), root).Wait(), absl::OkStatus());
    ASSERT_EQ(comm.Gather(from, in_place.data(), counts, DataTypeOf<T>(), root).Wait(), absl::OkStatus());
    for (size_t rank = 0, at = 0; is_root && rank < counts.size(); ++rank) {
      for (size_t i = 0; i < counts[rank]; ++i, ++at) {
        ASSERT_EQ(AsDouble(all[at]), AsDouble(Value<T>(static_cast<int>(rank), i))) << rank << " " << i;
        ASSERT_EQ(AsDouble(in_place[at]), AsDouble(all[at])) << rank << " " << i;
      }
    }
    T* const to = is_root ? all.data() + before : again.data();
    ASSERT_EQ(comm.Scatter(all.data(), back.data(), counts, DataTypeOf<T>(), root).Wait(), absl::OkStatus());
    ASSERT_EQ(comm.Scatter(all.data(), to, counts, DataTypeOf<T>(), root).Wait(), absl::OkStatus());
    for (size_t i = 0; i < send.size(); ++i) {
      ASSERT_EQ(AsDouble(back[i]), AsDouble(send[i])) << i;
      ASSERT_EQ(AsDouble(to[i]), AsDouble(send[i])) << i;
    }
  }
}

template <typename T>
void CheckAllToAll(Communicator& comm, size_t count) {
  std::vector<T> send, recv(count * comm.size());
  for (int rank = 0; rank < comm.size(); ++rank) {
    const std::vector<T> part = Values<T>(comm.rank(), rank, count);
    send.insert(send.end(), part.begin(), part.end());
  }
  ASSERT_EQ(comm.AllToAll(send.data(), recv.data(), count, DataTypeOf<T>()).Wait(), absl::OkStatus());
  for (size_t i = 0; i < recv.size(); ++i) {
    ASSERT_EQ(AsDouble(recv[i]), AsDouble(Value<T>(static_cast<int>(i / count), comm.rank() + i % count)));
  }
}

// Rank a sends ((a + 2b) % 4) * unit elements to rank b.
template <typename T>
void CheckAllToAllV(Communicator& comm, size_t unit) {
  const auto amount = [&](int from, int to) { return static_cast<size_t>((from + 2 * to) % 4) * unit; };
  std::vector<size_t> send_counts, recv_counts;
  std::vector<T> send, expected;
  for (int rank = 0; rank < comm.size(); ++rank) {
    send_counts.push_back(amount(comm.rank(), rank));
    recv_counts.push_back(amount(rank, comm.rank()));
    const std::vector<T> out = Values<T>(comm.rank(), rank, send_counts.back());
    const std::vector<T> in = Values<T>(rank, comm.rank(), recv_counts.back());
    send.insert(send.end(), out.begin(), out.end());
    expected.insert(expected.end(), in.begin(), in.end());
  }
  std::vector<T> recv(expected.size());
  ASSERT_EQ(comm.AllToAllV(send.data(), send_counts, recv.data(), recv_counts, DataTypeOf<T>()).Wait(),
            absl::OkStatus());
  for (size_t i = 0; i < recv.size(); ++i) ASSERT_EQ(AsDouble(recv[i]), AsDouble(expected[i])) << i;
  // The same with all counts known.
  std::vector<size_t> matrix;
  for (int from = 0; from < comm.size(); ++from) {
    for (int to = 0; to < comm.size(); ++to) matrix.push_back(amount(from, to));
  }
  std::vector<T> known(expected.size());
  ASSERT_EQ(comm.AllToAllMatrix(send.data(), known.data(), matrix, DataTypeOf<T>()).Wait(), absl::OkStatus());
  for (size_t i = 0; i < known.size(); ++i) ASSERT_EQ(AsDouble(known[i]), AsDouble(expected[i])) << i;
}

template <typename T>
void CheckAll(Communicator& comm, size_t count) {
  CheckAllReduce<T>(comm, count);
  CheckReduceScatter<T>(comm, count);
  CheckAllGather<T>(comm, count);
  CheckBroadcast<T>(comm, count);
  CheckReduce<T>(comm, count);
  CheckGatherAndScatter<T>(comm, count);
  CheckAllToAll<T>(comm, count);
  CheckAllToAllV<T>(comm, count);
  ASSERT_EQ(comm.Barrier().Wait(), absl::OkStatus());
}

void CheckAllTypes(Communicator& comm, size_t count) {
#define COHORT_X(enumerator, type, name, accumulator) \
  {                                                   \
    SCOPED_TRACE(name);                               \
    CheckAll<type>(comm, count);                      \
    if (::testing::Test::HasFatalFailure()) return;   \
  }
  COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
}

class Collectives : public ::testing::TestWithParam<int> {};

TEST_P(Collectives, SmallOfEveryType) {
  RunRanks(GetParam(), [](Communicator& comm) {
    for (const size_t count : {0, 1, 3, 1000}) CheckAllTypes(comm, count);
  });
}

TEST_P(Collectives, LargeThroughSingleCopy) {
  RunRanks(GetParam(), [](Communicator& comm) {
    CheckAll<float>(comm, 150'001);
    CheckAll<BFloat16>(comm, 70'003);
  });
}

TEST_P(Collectives, LargeThroughTheRing) {
  setenv("COHORT_SHM_SINGLE_COPY", "0", 1);
  RunRanks(GetParam(), [](Communicator& comm) {
    CheckAll<float>(comm, 100'001);
    CheckAll<BFloat16>(comm, 70'003);
  });
  unsetenv("COHORT_SHM_SINGLE_COPY");
}

// Signals go through lines of the ring in which contents lay before.
TEST(CollectivesAfterOthers, BarriersAfterSmallContents) {
  RunRanks(2, [](Communicator& comm) {
    const std::vector<uint8_t> send(16, 0xff);
    std::vector<uint8_t> recv(32);
    for (uint32_t i = 0; i <= policy::kShmRingEntries; ++i) {
      ASSERT_EQ(comm.AllGather(send.data(), recv.data(), {16, 16}, DataType::kU8).Wait(), absl::OkStatus());
    }
    for (uint32_t i = 0; i <= policy::kShmRingEntries; ++i) {
      ASSERT_EQ(comm.Barrier().Wait(), absl::OkStatus());
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, Collectives, ::testing::Values(1, 2, 3, 4, 5, 8));

}  // namespace
}  // namespace cohort::comm
