// Groups, send/recv, and operations in flight together.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using cohort::testing::RunRanks;
using cohort::testing::SharedCounter;

TEST(Groups, SplitByColorOrderedByKey) {
  RunRanks(5, [](Communicator& comm) {
    // Evens in reverse order, odds in order, rank 4 in none.
    const int color = comm.rank() == 4 ? -1 : comm.rank() % 2;
    auto group = comm.Split(color, color == 0 ? -comm.rank() : comm.rank());
    ASSERT_TRUE(group.ok()) << group.status();
    if (color < 0) {
      EXPECT_EQ(*group, nullptr);
    } else {
      ASSERT_EQ((*group)->size(), 2);
      EXPECT_EQ((*group)->rank(), color == 0 ? (comm.rank() == 0 ? 1 : 0) : comm.rank() / 2);
      EXPECT_EQ((*group)->topology().size(), 2);
      int64_t sum = comm.rank();
      EXPECT_EQ((*group)->AllReduce(&sum, &sum, 1, DataType::kI64).Wait(), absl::OkStatus());
      EXPECT_EQ(sum, color == 0 ? 2 : 4);
      // A group of a group.
      auto alone = (*group)->Split((*group)->rank(), 0);
      ASSERT_TRUE(alone.ok()) << alone.status();
      EXPECT_EQ((*alone)->size(), 1);
      EXPECT_EQ((*alone)->Barrier().Wait(), absl::OkStatus());
    }
    EXPECT_EQ(comm.Barrier().Wait(), absl::OkStatus());
  });
}

TEST(Groups, RowsAndColumnsInFlightTogether) {
  RunRanks(4, [](Communicator& comm) {
    auto row = comm.Split(comm.rank() / 2, comm.rank());
    auto column = comm.Split(comm.rank() % 2, comm.rank());
    ASSERT_TRUE(row.ok() && column.ok());
    for (int round = 0; round < 20; ++round) {
      std::vector<int32_t> a(1000, comm.rank()), b(50'000, comm.rank()), c(3, comm.rank());
      const Work works[] = {(*row)->AllReduce(a.data(), a.data(), a.size(), DataType::kI32),
                            (*column)->AllReduce(b.data(), b.data(), b.size(), DataType::kI32),
                            comm.AllReduce(c.data(), c.data(), c.size(), DataType::kI32)};
      for (const Work& work : works) ASSERT_EQ(work.Wait(), absl::OkStatus());
      const int in_row = comm.rank() / 2 * 4 + 1, in_column = comm.rank() % 2 * 2 + 2;
      EXPECT_EQ(a, std::vector<int32_t>(1000, in_row));
      EXPECT_EQ(b, std::vector<int32_t>(50'000, in_column));
      EXPECT_EQ(c, std::vector<int32_t>(3, 6));
    }
  });
}

TEST(Groups, ManyOperationsInFlightWaitedForBackwards) {
  RunRanks(3, [](Communicator& comm) {
    constexpr int kInFlight = 24;
    std::vector<std::vector<float>> data;
    std::vector<Work> works;
    for (int i = 0; i < kInFlight; ++i)
      data.emplace_back(static_cast<size_t>(1) << (i % 18), comm.rank() + i);
    for (auto& buffer : data) {
      works.push_back(comm.AllReduce(buffer.data(), buffer.data(), buffer.size(), DataType::kF32));
    }
    for (int i = kInFlight - 1; i >= 0; --i) {
      ASSERT_EQ(works[i].Wait(), absl::OkStatus());
      EXPECT_TRUE(works[i].Done());
      EXPECT_EQ(data[i], std::vector<float>(data[i].size(), 3.0f + 3.0f * i));
    }
  });
}

TEST(Groups, ProgressWithoutAnyoneWaiting) {
  // Rank 0 only starts the operations; the others cannot end them without its later steps.
  SharedCounter through;
  RunRanks(4, [&](Communicator& comm) {
    int expected = 0;
    for (const size_t count : {size_t{4}, size_t{1} << 20}) {
      std::vector<float> data(count, 1.0f);
      const Work work = comm.AllReduce(data.data(), data.data(), count, DataType::kF32);
      expected += 3;
      if (comm.rank() == 0) {
        EXPECT_TRUE(through.WaitFor(expected));
      }
      ASSERT_EQ(work.Wait(), absl::OkStatus());
      EXPECT_EQ(data, std::vector<float>(count, 4.0f));
      if (comm.rank() != 0) through.Add();
      ASSERT_EQ(comm.Barrier().Wait(), absl::OkStatus());
    }
  });
}

TEST(Groups, DroppedHandlesAreFinishedByTheDestructor) {
  RunRanks(3, [](Communicator& comm) {
    std::vector<float> data(100'000, 1.0f);
    auto group = comm.Split(0, 0);
    ASSERT_TRUE(group.ok());
    (*group)->AllReduce(data.data(), data.data(), data.size(), DataType::kF32);
    group->reset();
    EXPECT_EQ(data, std::vector<float>(data.size(), 3.0f));
  });
}

TEST(Groups, SendAndReceiveMatchByPeerAndTagInOrder) {
  RunRanks(3, [](Communicator& comm) {
    const int next = (comm.rank() + 1) % 3, previous = (comm.rank() + 2) % 3;
    for (const size_t count : {size_t{0}, size_t{1}, size_t{100'000}}) {
      std::vector<std::vector<double>> out, in;
      std::vector<Work> works;
      for (int i = 0; i < 6; ++i) {
        out.emplace_back(count, comm.rank() * 10 + i);
        in.emplace_back(count, -1);
      }
      // Tag i % 2; posted in different orders on the two sides.
      for (int i = 0; i < 6; ++i)
        works.push_back(comm.Send(out[i].data(), count, DataType::kF64, next, i % 2));
      for (const int i : {1, 3, 0, 5, 2, 4}) {
        works.push_back(comm.Recv(in[i].data(), count, DataType::kF64, previous, i % 2));
      }
      for (const Work& work : works) ASSERT_EQ(work.Wait(), absl::OkStatus());
      for (int i = 0; i < 6; ++i) EXPECT_EQ(in[i], std::vector<double>(count, previous * 10 + i)) << i;
    }
  });
}

TEST(Groups, SendToSelf) {
  auto comm = Communicator::Single();
  int32_t in = 0, out = 7;
  const Work recv = comm->Recv(&in, 1, DataType::kI32, 0, 3);
  EXPECT_FALSE(recv.Done());
  EXPECT_EQ(comm->Send(&out, 1, DataType::kI32, 0, 3).Wait(), absl::OkStatus());
  EXPECT_EQ(recv.Wait(), absl::OkStatus());
  EXPECT_EQ(in, 7);
}

TEST(Groups, SingleCopies) {
  auto comm = Communicator::Single();
  const std::vector<float> in = {1, 2, 3};
  for (int which = 0; which < 5; ++which) {
    std::vector<float> out(3);
    Work work;
    if (which == 0) work = comm->AllReduce(in.data(), out.data(), 3, DataType::kF32, ReduceOp::kMax);
    if (which == 1) work = comm->ReduceScatter(in.data(), out.data(), {3}, DataType::kF32);
    if (which == 2) work = comm->AllGather(in.data(), out.data(), {3}, DataType::kF32);
    if (which == 3) work = comm->AllToAll(in.data(), out.data(), 3, DataType::kF32);
    if (which == 4) work = comm->AllToAllV(in.data(), {3}, out.data(), {3}, DataType::kF32);
    EXPECT_EQ(work.Wait(), absl::OkStatus());
    EXPECT_EQ(out, in) << which;
  }
}

TEST(Groups, MinMaxProduct) {
  RunRanks(3, [](Communicator& comm) {
    const float own = static_cast<float>(comm.rank()) - 1.5f;  // -1.5, -0.5, 0.5
    float result = 0;
    ASSERT_EQ(comm.AllReduce(&own, &result, 1, DataType::kF32, ReduceOp::kMin).Wait(), absl::OkStatus());
    EXPECT_EQ(result, -1.5f);
    ASSERT_EQ(comm.AllReduce(&own, &result, 1, DataType::kF32, ReduceOp::kMax).Wait(), absl::OkStatus());
    EXPECT_EQ(result, 0.5f);
    ASSERT_EQ(comm.AllReduce(&own, &result, 1, DataType::kF32, ReduceOp::kProduct).Wait(), absl::OkStatus());
    EXPECT_EQ(result, 0.375f);
  });
}

TEST(Groups, AllRanksGetTheSameBits) {
  RunRanks(5, [](Communicator& comm) {
    for (const size_t count : {size_t{1000}, size_t{200'000}}) {
      std::vector<float> data(count);
      for (size_t i = 0; i < count; ++i)
        data[i] = 1.0f / static_cast<float>(1 + (i * 7 + comm.rank() * 13) % 101);
      ASSERT_EQ(comm.AllReduce(data.data(), data.data(), count, DataType::kF32).Wait(), absl::OkStatus());
      std::vector<float> first = data;
      ASSERT_EQ(comm.Broadcast(first.data(), count, DataType::kF32, 0).Wait(), absl::OkStatus());
      EXPECT_EQ(data, first);
    }
  });
}

}  // namespace
}  // namespace cohort::comm
