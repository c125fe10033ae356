// Every operation on device memory against the same one over host memory: all types, reductions, ragged and zero counts,
// one host and several, both forms.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "tests/comm/nccl/device_ranks.h"

namespace cohort::comm::nccl {
namespace {

// Small numbers that every type holds exactly, also as sums and products of few ranks, as bytes.
std::vector<std::byte> Values(DataType dtype, int rank, size_t count) {
  std::vector<std::byte> values(count * SizeOf(dtype));
  for (size_t i = 0; i < count; ++i) {
    const float value = static_cast<float>(1 + (rank * 3 + i % 5) % 3);
    std::byte* const at = values.data() + i * SizeOf(dtype);
    switch (dtype) {
#define COHORT_X(enumerator, type, name, accumulator) \
  case DataType::enumerator: {                        \
    const type typed = static_cast<type>(value);      \
    std::memcpy(at, &typed, sizeof(typed));           \
    break;                                            \
  }
      COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
    }
  }
  return values;
}

size_t Sum(const std::vector<size_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), size_t{0});
}

// The same calls on both, all in flight together.
class Pair {
 public:
  Pair(Rig& rig, DataType dtype, ReduceOp op) : rig_(rig), dtype_(dtype), op_(op) {}

  void Check(const std::vector<size_t>& counts) {
    AllReduce(counts[0]);
    Reduce(counts[0]);
    Broadcast(counts[0]);
    ReduceScatter(counts);
    AllGather(counts);
    GatherAndScatter(counts);
    AllToAll(counts[0]);
    AllToAllV(counts);
    // Nobody has waited yet.
    for (const Work& work : works_) ASSERT_EQ(work.Wait(), absl::OkStatus());
    for (const auto& compare : compare_) compare();
  }

 private:
  using Vector = std::shared_ptr<std::vector<std::byte>>;
  using Call = std::function<Work(Communicator& comm, const std::byte* in, std::byte* out)>;

  Vector Make(size_t count) {
    auto made = std::make_shared<std::vector<std::byte>>(Values(dtype_, rig_.rank(), count));
    made->reserve(1);  // data() is no null
    return made;
  }
  void Both(const std::string& what, const Vector& input, const Vector& output, const Call& call) {
    auto expected = std::make_shared<std::vector<std::byte>>(*output);
    expected->reserve(1);
    works_.push_back(call(*rig_.base, input->data(), expected->data()));
    works_.push_back(call(*rig_.device, input->data(), output->data()));
    compare_.push_back([=] {
      EXPECT_TRUE(*expected == *output) << what;
      (void)input;
    });
  }
  void InPlace(const std::string& what, const Vector& buffer,
               const std::function<Work(Communicator& comm, std::byte* buffer)>& call) {
    auto expected = std::make_shared<std::vector<std::byte>>(*buffer);
    expected->reserve(1);
    works_.push_back(call(*rig_.base, expected->data()));
    works_.push_back(call(*rig_.device, buffer->data()));
    compare_.push_back([=] { EXPECT_TRUE(*expected == *buffer) << what << " in place"; });
  }

  void AllReduce(size_t count) {
    Both("all-reduce", Make(count), Make(count),
         [&](Communicator& comm, const std::byte* in, std::byte* out) {
           return comm.AllReduce(in, out, count, dtype_, op_);
         });
    InPlace("all-reduce", Make(count), [&](Communicator& comm, std::byte* buffer) {
      return comm.AllReduce(buffer, buffer, count, dtype_, op_);
    });
  }
  void Reduce(size_t count) {
    for (int root = 0; root < rig_.size(); ++root) {
      Both("reduce", Make(count), Make(count), [&](Communicator& comm, const std::byte* in, std::byte* out) {
        return comm.Reduce(in, comm.rank() == root ? out : nullptr, count, dtype_, root, op_);
      });
      InPlace("reduce", Make(count), [&](Communicator& comm, std::byte* buffer) {
        return comm.Reduce(buffer, buffer, count, dtype_, root, op_);
      });
    }
  }
  void Broadcast(size_t count) {
    for (int root = 0; root < rig_.size(); ++root) {
      InPlace("broadcast", Make(count), [&](Communicator& comm, std::byte* buffer) {
        return comm.Broadcast(buffer, count, dtype_, root);
      });
    }
  }
  void ReduceScatter(const std::vector<size_t>& counts) {
    Both("reduce-scatter", Make(Sum(counts)), Make(counts[rig_.rank()]),
         [&](Communicator& comm, const std::byte* in, std::byte* out) {
           return comm.ReduceScatter(in, out, counts, dtype_, op_);
         });
  }
  void AllGather(const std::vector<size_t>& counts) {
    const size_t own = counts[rig_.rank()], before = Before(counts);
    Both("all-gather", Make(own), Make(Sum(counts)),
         [&](Communicator& comm, const std::byte* in, std::byte* out) {
           return comm.AllGather(in, out, counts, dtype_);
         });
    InPlace("all-gather", Make(Sum(counts)), [&](Communicator& comm, std::byte* buffer) {
      return comm.AllGather(buffer + before, buffer, counts, dtype_);
    });
  }
  void GatherAndScatter(const std::vector<size_t>& counts) {
    const size_t own = counts[rig_.rank()], before = Before(counts);
    for (int root = 0; root < rig_.size(); ++root) {
      const bool is_root = rig_.rank() == root;
      Both("gather", Make(own), Make(Sum(counts)),
           [&](Communicator& comm, const std::byte* in, std::byte* out) {
             return comm.Gather(in, is_root ? out : nullptr, counts, dtype_, root);
           });
      InPlace("gather", Make(Sum(counts)), [&](Communicator& comm, std::byte* buffer) {
        return comm.Gather(buffer + before, buffer, counts, dtype_, root);
      });
      Both("scatter", Make(Sum(counts)), Make(own),
           [&](Communicator& comm, const std::byte* in, std::byte* out) {
             return comm.Scatter(is_root ? in : nullptr, out, counts, dtype_, root);
           });
      InPlace("scatter", Make(Sum(counts)), [&](Communicator& comm, std::byte* buffer) {
        return comm.Scatter(buffer, buffer + before, counts, dtype_, root);
      });
    }
  }
  void AllToAll(size_t count) {
    const size_t all = count * rig_.size();
    Both("all-to-all", Make(all), Make(all), [&](Communicator& comm, const std::byte* in, std::byte* out) {
      return comm.AllToAll(in, out, count, dtype_);
    });
  }
  // counts[(a + b) % ranks] elements from rank a to rank b, once with and once without everybody knowing.
  void AllToAllV(const std::vector<size_t>& counts) {
    const int ranks = rig_.size();
    std::vector<size_t> matrix, own;
    for (int a = 0; a < ranks; ++a) {
      for (int b = 0; b < ranks; ++b) matrix.push_back(counts[(a + b) % ranks]);
    }
    for (int b = 0; b < ranks; ++b) own.push_back(matrix[rig_.rank() * ranks + b]);
    Both("all-to-all-v", Make(Sum(own)), Make(Sum(own)),
         [&](Communicator& comm, const std::byte* in, std::byte* out) {
           return comm.AllToAllV(in, own, out, own, dtype_);
         });
    Both("all-to-all-matrix", Make(Sum(own)), Make(Sum(own)),
         [&](Communicator& comm, const std::byte* in, std::byte* out) {
           return comm.AllToAllMatrix(in, out, matrix, dtype_);
         });
  }

  // Bytes.
  size_t Before(const std::vector<size_t>& counts) const {
    return std::accumulate(counts.begin(), counts.begin() + rig_.rank(), size_t{0}) * SizeOf(dtype_);
  }

  Rig& rig_;
  const DataType dtype_;
  const ReduceOp op_;
  std::vector<Work> works_;
  std::vector<std::function<void()>> compare_;
};

struct Layout {
  std::string name;
  std::vector<int> hosts;
  std::optional<Way> way;
};

class DeviceOperations : public ::testing::TestWithParam<Layout> {};

TEST_P(DeviceOperations, AreThoseOverHostMemory) {
  const Layout& layout = GetParam();
  const int ranks = static_cast<int>(layout.hosts.size());
  RunDeviceRanks(ranks, {.hosts = layout.hosts, .way = layout.way}, [&](Rig& rig) {
    std::vector<std::vector<size_t>> kinds;
    kinds.emplace_back(ranks, 0);   // nothing
    kinds.emplace_back(ranks, 1);   // less than lanes
    kinds.emplace_back(ranks, 60);  // several pieces, which lanes divide
    kinds.emplace_back();           // ragged, with nothing of rank 1
    for (int rank = 0; rank < ranks; ++rank) kinds.back().push_back(rank == 1 ? 0 : rank * 17 + 5);
    for (const auto& counts : kinds) {
      Pair(rig, DataType::kF32, ReduceOp::kSum).Check(counts);
      if (::testing::Test::HasFailure()) return;
    }
#define COHORT_X(enumerator, type, name, accumulator)                                            \
  for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMin, ReduceOp::kMax, ReduceOp::kProduct}) \
    Pair(rig, DataType::enumerator, op).Check(std::vector<size_t>(ranks, 9));
    COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
    ASSERT_EQ(rig.device->Barrier().Wait(), absl::OkStatus());
    EXPECT_EQ(rig.fake->aborted(), 0);
    rig.device.reset();
    EXPECT_EQ(rig.fake->left(), 1) << "what is left besides the stream";
  });
}

INSTANTIATE_TEST_SUITE_P(Layouts, DeviceOperations,
                         ::testing::Values(Layout{"OneRank", {0}, {}}, Layout{"OneHost", {0, 0, 0}, {}},
                                           Layout{"TwoHostsByNccl", {0, 0, 1, 1}, Way::kNccl},
                                           Layout{"TwoHosts", {0, 0, 1, 1}, Way::kHosts},
                                           Layout{"Interleaved", {0, 1, 0, 1}, Way::kHosts},
                                           Layout{"Uneven", {0, 0, 0, 1, 1}, Way::kHosts},
                                           Layout{"AloneOnAHost", {0, 1, 1, 1}, Way::kHosts},
                                           Layout{"EachAlone", {0, 1, 2}, Way::kHosts}),
                         [](const auto& info) { return info.param.name; });

TEST(DeviceStreams, KeepTheOrderWithoutWaiting) {
  for (const Way way : {Way::kNccl, Way::kHosts}) {
    RunDeviceRanks(4, {.hosts = {0, 0, 1, 1}, .way = way}, [](Rig& rig) {
      rig.fake->Set({.late_by = absl::Milliseconds(30)});
      std::vector<int32_t> a(100, rig.rank() + 1), b(100), c(100);
      const Work first = rig.device->AllReduce(a.data(), a.data(), 100, DataType::kI32);
      EXPECT_FALSE(first.Done());
      // Other work of the stream, between two collectives, reads what the first and feeds the second.
      ASSERT_EQ(rig.fake->Copy(b.data(), a.data(), 400, rig.options.stream), absl::OkStatus());
      const Work second = rig.device->AllReduce(b.data(), c.data(), 100, DataType::kI32);
      EXPECT_FALSE(second.Done());
      EXPECT_EQ(second.Wait(absl::Now()).code(), absl::StatusCode::kDeadlineExceeded);
      ASSERT_EQ(second.Wait(), absl::OkStatus());
      EXPECT_TRUE(first.Done());
      EXPECT_EQ(first.Wait(), absl::OkStatus());
      EXPECT_THAT(a, ::testing::Each(10));
      EXPECT_THAT(c, ::testing::Each(40));
    });
  }
}

TEST(DeviceStreams, NcclThatIsBusyIsWaitedFor) {
  RunDeviceRanks(3, {}, [](Rig& rig) {
    rig.fake->Set({.pending_for = absl::Milliseconds(20)});
    std::vector<float> data(10, 1);
    std::vector<Work> works;
    for (int i = 0; i < 5; ++i)
      works.push_back(rig.device->AllReduce(data.data(), data.data(), 10, DataType::kF32));
    for (const Work& work : works) ASSERT_EQ(work.Wait(), absl::OkStatus());
    EXPECT_THAT(data, ::testing::Each(243));
  });
}

// One after the other each would wait for the other's receive: NCCL's messages occupy the stream.
TEST(DeviceMessages, OfAGroupMoveSideBySide) {
  RunDeviceRanks(3, {}, [](Rig& rig) {
    const int right = (rig.rank() + 1) % 3, left = (rig.rank() + 2) % 3;
    std::vector<double> own(5, rig.rank()), got(5, -1), self(5, -1);
    const int groups = rig.fake->groups();
    ASSERT_EQ(rig.device->BeginGroup(), absl::OkStatus());
    EXPECT_EQ(rig.device->Barrier().Wait().code(), absl::StatusCode::kFailedPrecondition);
    const Work sent = rig.device->Send(own.data(), 5, DataType::kF64, right);
    (void)rig.device->Recv(got.data(), 5, DataType::kF64, left);
    (void)rig.device->Send(own.data(), 5, DataType::kF64, rig.rank());
    (void)rig.device->Recv(self.data(), 5, DataType::kF64, rig.rank());
    (void)rig.device->Recv(nullptr, 0, DataType::kF64, left);
    ASSERT_EQ(rig.device->EndGroup().Wait(), absl::OkStatus());
    EXPECT_EQ(sent.Wait(), absl::OkStatus());
    EXPECT_THAT(got, ::testing::Each(left));
    EXPECT_THAT(self, ::testing::Each(rig.rank()));
    EXPECT_EQ(rig.fake->groups(), groups + 1);
    EXPECT_EQ(rig.device->EndGroup().Wait().code(), absl::StatusCode::kFailedPrecondition);
    // Two ranks, one message, while the third does nothing.
    if (rig.rank() == 0) {
      EXPECT_EQ(rig.device->Send(own.data(), 5, DataType::kF64, 1).Wait(), absl::OkStatus());
    }
    if (rig.rank() == 1) {
      EXPECT_EQ(rig.device->Recv(got.data(), 5, DataType::kF64, 0).Wait(), absl::OkStatus());
      EXPECT_THAT(got, ::testing::Each(0));
    }
    ASSERT_EQ(rig.device->Barrier().Wait(), absl::OkStatus());
  });
}

TEST(DeviceArguments, AreChecked) {
  RunDeviceRanks(2, {}, [](Rig& rig) {
    DeviceCommunicator& device = *rig.device;
    float x[4] = {};
    const std::vector<size_t> three(3, 1), two(2, 1);
    const auto code = [](const Work& work) { return work.Wait().code(); };
    constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
    EXPECT_EQ(code(device.AllReduce(nullptr, x, 4, DataType::kF32, ReduceOp::kSum)), kInvalid);
    EXPECT_EQ(code(device.AllGather(x, x + 1, three, DataType::kF32)), kInvalid);
    EXPECT_EQ(code(device.ReduceScatter(x, x, two, DataType::kF32, ReduceOp::kSum)), kInvalid);
    EXPECT_EQ(code(device.Broadcast(x, 1, DataType::kF32, 2)), kInvalid);
    EXPECT_EQ(code(device.AllToAllMatrix(x, x + 1, three, DataType::kF32)), kInvalid);
    EXPECT_EQ(code(device.Send(x, 1, DataType::kF32, 1 - rig.rank(), 7)), kInvalid);
    EXPECT_EQ(code(device.Send(x, 1, DataType::kF32, rig.rank(), 0)), kInvalid);
    // Nobody was told of any of it.
    EXPECT_EQ(device.Barrier().Wait(), absl::OkStatus());
  });
}

TEST(DeviceWays, AreChosenByPrice) {
  const WayPrices prices{.nccl = {1e-3, 1e-9}, .hosts = {2e-3, 0.5e-9}};
  EXPECT_EQ(ChooseWay(prices, Operation::kAllReduce, 1 << 10, 2), Way::kNccl);
  EXPECT_EQ(ChooseWay(prices, Operation::kAllReduce, 1 << 22, 2), Way::kHosts);
  EXPECT_EQ(ChooseWay(prices, Operation::kAllReduce, 1 << 22, 1), Way::kNccl);
  EXPECT_EQ(ChooseWay(prices, Operation::kAllToAll, 1 << 30, 2), Way::kNccl) << "it has no other form";
  const WayPrice line = PriceOf(1000, 3e-3, 5000, 7e-3);
  EXPECT_DOUBLE_EQ(line.seconds_per_byte, 1e-6);
  EXPECT_DOUBLE_EQ(line.seconds, 2e-3);
  EXPECT_EQ(PriceOf(1000, 3e-3, 5000, 2e-3).seconds_per_byte, 0) << "no number is negative";
}

// All ranks choose the same, whatever was measured.
TEST(DeviceWays, AreMeasuredWhereNobodySays) {
  RunDeviceRanks(4, {.hosts = {0, 0, 1, 1}, .piece_bytes = policy::kPieceBytes}, [](Rig& rig) {
    const int mine = static_cast<int>(rig.device->WayOf(Operation::kAllReduce, 1 << 20));
    int least = 0, most = 0;
    ASSERT_EQ(rig.base->AllReduce(&mine, &least, 1, DataType::kI32, ReduceOp::kMin).Wait(), absl::OkStatus());
    ASSERT_EQ(rig.base->AllReduce(&mine, &most, 1, DataType::kI32, ReduceOp::kMax).Wait(), absl::OkStatus());
    EXPECT_EQ(least, most);
    EXPECT_EQ(rig.device->WayOf(Operation::kGather, 1 << 20), Way::kNccl);
    std::vector<int64_t> data(1 << 16, rig.rank());
    ASSERT_EQ(rig.device->AllReduce(data.data(), data.data(), data.size(), DataType::kI64).Wait(),
              absl::OkStatus());
    EXPECT_THAT(data, ::testing::Each(6));
  });
}

}  // namespace
}  // namespace cohort::comm::nccl
