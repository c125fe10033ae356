// Collectives with a codec, over real processes on one host and on several.
#include "comm/codec/quantized_collectives.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "comm/rendezvous.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using testing::RunProcesses;

// Runs `body` on ranks[h] ranks of host h.
void OnHosts(const std::vector<int>& ranks, const std::function<void(Communicator&)>& body) {
  std::vector<std::string> host_of;
  for (size_t host = 0; host < ranks.size(); ++host) {
    host_of.insert(host_of.end(), ranks[host], std::to_string(host));
  }
  RunProcesses(static_cast<int>(host_of.size()), [&](int rank, int size, const std::string& folder) {
    if (ranks.size() > 1) setenv("COHORT_HOST_ID", host_of[rank].c_str(), 1);
    auto group =
        Communicator::Create(FileRendezvous(folder + "/meet", rank, size), {.timeout = absl::Seconds(20)});
    ASSERT_TRUE(group.ok()) << group.status();
    ASSERT_EQ((*group)->topology().num_hosts(), static_cast<int>(ranks.size()));
    body(**group);
  });
}

std::vector<float> Values(int rank, size_t count) {
  std::mt19937 random(static_cast<uint32_t>(rank) + 1);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

std::vector<double> Sums(int size, size_t count) {
  std::vector<double> sums(count, 0);
  for (int rank = 0; rank < size; ++rank) {
    const std::vector<float> values = Values(rank, count);
    for (size_t i = 0; i < count; ++i) sums[i] += values[i];
  }
  return sums;
}

// Every element of rank's values is at most this; so is a host's share of a sum times its ranks.
constexpr double kLargest = 6;

// Of nothing too, whose addresses may be null, which memcmp forbids.
bool Same(const void* a, const void* b, size_t bytes) { return bytes == 0 || std::memcmp(a, b, bytes) == 0; }

// That all ranks have the same bytes.
void ExpectSame(Communicator& group, const void* data, size_t bytes) {
  std::vector<size_t> counts(group.size(), bytes);
  std::vector<std::byte> all(bytes * group.size());
  ASSERT_EQ(group.AllGather(data, all.data(), counts, DataType::kU8).Wait(), absl::OkStatus());
  for (int rank = 0; rank < group.size(); ++rank) {
    ASSERT_TRUE(Same(all.data() + rank * bytes, data, bytes)) << "rank " << rank << " has other bits";
  }
}

const std::vector<std::vector<int>> kMachines = {{2}, {3}, {1, 1}, {1, 3}, {1, 1, 2}};

TEST(QuantizedCollectivesTest, AllReduceIsNearAndTheSameEverywhere) {
  for (const auto& machine : kMachines) {
    OnHosts(machine, [](Communicator& group) {
      for (const Codec& codec : Codecs()) {
        for (const size_t count : {size_t{0}, size_t{1}, size_t{255}, size_t{70003}}) {
          for (const Rounding rounding : {Rounding::kNearest, Rounding::kStochastic, Rounding::kShift}) {
            if (rounding == Rounding::kShift && !codec.shifts()) continue;
            const QuantizedOptions options{codec.kind, rounding, 5, count};
            const std::vector<float> values = Values(group.rank(), count);
            std::vector<float> result(count);
            Work work =
                QuantizedAllReduce(group, values.data(), result.data(), count, DataType::kF32, options);
            const absl::Status status = work.Wait();
            ASSERT_TRUE(status.ok()) << status;
            const std::vector<double> sums = Sums(group.size(), count);
            // Each rank's values and the sum are encoded once.
            const double bound = 2 * 2 * codec.max_error * kLargest * group.size();
            for (size_t i = 0; i < count; ++i)
              ASSERT_NEAR(result[i], sums[i], bound) << codec.name << " " << i;
            ExpectSame(group, result.data(), count * sizeof(float));
            std::vector<float> in_place = values;
            ASSERT_EQ(
                QuantizedAllReduce(group, in_place.data(), in_place.data(), count, DataType::kF32, options)
                    .Wait(),
                absl::OkStatus());
            ASSERT_TRUE(Same(in_place.data(), result.data(), count * sizeof(float)));
          }
        }
      }
    });
  }
}

TEST(QuantizedCollectivesTest, BFloat16) {
  OnHosts({2, 1}, [](Communicator& group) {
    const size_t count = 5000;
    const std::vector<float> values = Values(group.rank(), count);
    std::vector<BFloat16> narrow(count), result(count);
    for (size_t i = 0; i < count; ++i) narrow[i] = BFloat16(values[i]);
    const std::vector<double> sums = Sums(3, count);
    ASSERT_TRUE(
        QuantizedAllReduce(group, narrow.data(), result.data(), count, DataType::kBF16, {}).Wait().ok());
    for (size_t i = 0; i < count; ++i) ASSERT_NEAR(static_cast<float>(result[i]), sums[i], 0.3);
    ExpectSame(group, result.data(), count * 2);
    const std::vector<size_t> counts = {1000, 0, 4000};
    const size_t begin = group.rank() == 2 ? 1000 : 0;
    ASSERT_TRUE(
        QuantizedReduceScatter(group, narrow.data(), result.data(), counts, DataType::kBF16, {}).Wait().ok());
    for (size_t i = 0; i < counts[group.rank()]; ++i) {
      ASSERT_NEAR(static_cast<float>(result[i]), sums[begin + i], 0.3);
    }
  });
}

TEST(QuantizedCollectivesTest, ReduceScatterAllGatherAllToAll) {
  const auto run = [](Communicator& group, const QuantizedOptions& options) {
    const int size = group.size(), own = group.rank();
    std::vector<size_t> counts(size), offsets(size + 1, 0);
    for (int rank = 0; rank < size; ++rank) counts[rank] = rank == 1 ? 0 : 700 + 13 * rank;
    std::partial_sum(counts.begin(), counts.end(), offsets.begin() + 1);
    const double error = 2 * GetCodec(options.codec).max_error * kLargest;

    const std::vector<float> values = Values(own, offsets.back());
    std::vector<float> mine(counts[own]);
    absl::Status status =
        QuantizedReduceScatter(group, values.data(), mine.data(), counts, DataType::kF32, options).Wait();
    ASSERT_TRUE(status.ok()) << status;
    const std::vector<double> sums = Sums(size, offsets.back());
    for (size_t i = 0; i < mine.size(); ++i) ASSERT_NEAR(mine[i], sums[offsets[own] + i], error * size);

    std::vector<float> all(offsets.back());
    status = QuantizedAllGather(group, values.data(), all.data(), counts, DataType::kF32, options).Wait();
    ASSERT_TRUE(status.ok()) << status;
    ExpectSame(group, all.data(), all.size() * sizeof(float));
    for (int rank = 0; rank < size; ++rank) {
      const std::vector<float> theirs = Values(rank, counts[rank]);
      for (size_t i = 0; i < counts[rank]; ++i) ASSERT_NEAR(all[offsets[rank] + i], theirs[i], error);
    }

    const size_t each = 901;
    const std::vector<float> out = Values(own, each * size);
    std::vector<float> in(each * size);
    status = QuantizedAllToAll(group, out.data(), in.data(), each, DataType::kF32, options).Wait();
    ASSERT_TRUE(status.ok()) << status;
    for (int rank = 0; rank < size; ++rank) {
      const std::vector<float> theirs = Values(rank, each * size);
      for (size_t i = 0; i < each; ++i) ASSERT_NEAR(in[rank * each + i], theirs[own * each + i], error);
    }
  };
  for (const auto& machine : kMachines) {
    OnHosts(machine, [&](Communicator& group) {
      run(group, {CodecKind::kInt8, Rounding::kStochastic, 1, 2});
      run(group, {CodecKind::kMinMax8, Rounding::kShift, 1, 2});
    });
  }
}

// As a sharded model does it: gathers and sums of several sizes under way at once, encoded and plain ones in turns. Every
// rank knows what each other one encodes, so the result must have exactly its bits.
TEST(QuantizedCollectivesTest, ManyAtOnceHaveTheBitsOfTheirEncodings) {
  constexpr int kRounds = 5;
  static constexpr size_t kSizes[] = {64, 5000, 33000, 128, 12345, 40000};
  OnHosts({4}, [](Communicator& world) {
    const int size = world.size(), own = world.rank();
    const auto gathers = world.Split(0, own), sums = world.Split(0, own);
    ASSERT_TRUE(gathers.ok() && sums.ok());
    struct Call {
      std::vector<float> mine, all, contribution, sum;
      Work gather, reduce;
    };
    for (int round = 0; round < kRounds; ++round) {
      std::vector<Call> calls;
      const auto options = [&](size_t i, Rounding rounding) {
        return QuantizedOptions{CodecKind::kMinMax8, rounding, i, static_cast<uint64_t>(round)};
      };
      const auto encoded = [&](size_t i) { return kSizes[i] > 1000; };
      for (size_t i = 0; i < std::size(kSizes); ++i) {
        const size_t count = kSizes[i];
        calls.push_back({.mine = Values(own + 10 * round, count),
                         .all = std::vector<float>(count * size),
                         .contribution = Values(own + 10 * round + 5, count * size),
                         .sum = std::vector<float>(count),
                         .gather = Work(),
                         .reduce = Work()});
      }
      for (size_t i = 0; i < calls.size(); ++i) {
        Call& call = calls[i];
        const std::vector<size_t> counts(size, kSizes[i]);
        if (encoded(i)) {
          call.gather = QuantizedAllGather(**gathers, call.mine.data(), call.all.data(), counts,
                                           DataType::kF32, options(i, Rounding::kShift));
          call.reduce = QuantizedReduceScatter(**sums, call.contribution.data(), call.sum.data(), counts,
                                               DataType::kF32, options(i + 100, Rounding::kStochastic));
        } else {
          call.gather = (*gathers)->AllGather(call.mine.data(), call.all.data(), counts, DataType::kF32);
          call.reduce =
              (*sums)->ReduceScatter(call.contribution.data(), call.sum.data(), counts, DataType::kF32);
        }
      }
      for (size_t i = 0; i < calls.size(); ++i) {
        Call& call = calls[i];
        const size_t count = kSizes[i];
        ASSERT_EQ(call.gather.Wait(), absl::OkStatus());
        ASSERT_EQ(call.reduce.Wait(), absl::OkStatus());
        const Codec& codec = GetCodec(CodecKind::kMinMax8);
        const auto seen = [&](std::vector<float> values, int rank) {
          if (!encoded(i)) return values;
          const QuantizedOptions how = options(i, Rounding::kShift);
          std::vector<std::byte> wire(codec.EncodedBytes(count));
          codec.Encode({how.rounding, how.seed, how.step, static_cast<uint32_t>(rank)}, values.data(),
                       DataType::kF32, count, 0, nullptr, wire.data());
          codec.Decode(wire.data(), count, values.data(), DataType::kF32);
          return values;
        };
        std::vector<double> want(count, 0);
        for (int rank = 0; rank < size; ++rank) {
          const std::vector<float> theirs = seen(Values(rank + 10 * round, count), rank);
          ASSERT_TRUE(Same(theirs.data(), call.all.data() + rank * count, count * sizeof(float)))
              << "round " << round << ", size " << count << ", of rank " << rank;
          const std::vector<float> all = Values(rank + 10 * round + 5, count * size);
          for (size_t e = 0; e < count; ++e) want[e] += all[own * count + e];
        }
        const double bound = encoded(i) ? size * 2 * codec.max_error * kLargest : 1e-5;
        for (size_t e = 0; e < count; ++e) {
          ASSERT_NEAR(call.sum[e], want[e], bound) << "round " << round << ", size " << count << ", " << e;
        }
      }
    }
  });
}

TEST(QuantizedCollectivesTest, WithErrorFeedbackTheMeanOfManyRoundsIsRight) {
  OnHosts({2, 1}, [](Communicator& group) {
    const size_t count = 2000;
    constexpr int kRounds = 30;
    const std::vector<float> values = Values(group.rank(), count);
    const std::vector<double> sums = Sums(group.size(), count);
    ErrorFeedback feedback;
    QuantizedOptions options{CodecKind::kInt4};
    std::vector<double> with(count, 0), without(count, 0);
    std::vector<float> result(count);
    for (int round = 0; round < kRounds; ++round) {
      options.feedback = &feedback;
      ASSERT_TRUE(QuantizedAllReduce(group, values.data(), result.data(), count, DataType::kF32, options)
                      .Wait()
                      .ok());
      for (size_t i = 0; i < count; ++i) with[i] += result[i] / double{kRounds};
      options.feedback = nullptr;
      ASSERT_TRUE(QuantizedAllReduce(group, values.data(), result.data(), count, DataType::kF32, options)
                      .Wait()
                      .ok());
      for (size_t i = 0; i < count; ++i) without[i] += result[i] / double{kRounds};
    }
    double error_with = 0, error_without = 0;
    for (size_t i = 0; i < count; ++i) {
      error_with += std::fabs(with[i] - sums[i]);
      error_without += std::fabs(without[i] - sums[i]);
    }
    EXPECT_LT(error_with, error_without / 10);
    // Another size is another buffer.
    options.feedback = &feedback;
    const absl::Status other =
        QuantizedAllReduce(group, values.data(), result.data(), count / 2, DataType::kF32, options).Wait();
    EXPECT_EQ(other.code(), absl::StatusCode::kInvalidArgument) << other;
  });
}

TEST(QuantizedCollectivesTest, NanIsSeenByAll) {
  OnHosts({1, 1}, [](Communicator& group) {
    std::vector<float> values(3000, 1), result(3000);
    if (group.rank() == 1) values[10] = std::nanf("");
    ASSERT_TRUE(
        QuantizedAllReduce(group, values.data(), result.data(), 3000, DataType::kF32, {}).Wait().ok());
    EXPECT_TRUE(std::isnan(result[10]));
    EXPECT_NEAR(result[2999], 2, 1e-5);
  });
}

TEST(QuantizedCollectivesTest, WrongCallsAreErrors) {
  OnHosts({2}, [](Communicator& group) {
    std::vector<double> numbers(8);
    EXPECT_EQ(QuantizedAllReduce(group, numbers.data(), numbers.data(), 8, DataType::kF64, {}).Wait().code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(QuantizedAllReduce(group, nullptr, numbers.data(), 8, DataType::kF32, {}).Wait().code(),
              absl::StatusCode::kInvalidArgument);
    std::vector<float> values(600);
    const absl::Status shifted = QuantizedAllReduce(group, values.data(), values.data(), 600, DataType::kF32,
                                                    {CodecKind::kInt8, Rounding::kShift})
                                     .Wait();
    EXPECT_EQ(shifted.code(), absl::StatusCode::kInvalidArgument) << shifted;
    // One rank encodes otherwise than the other.
    const QuantizedOptions options{group.rank() == 0 ? CodecKind::kInt8 : CodecKind::kFp8};
    const absl::Status status =
        QuantizedAllReduce(group, values.data(), values.data(), 600, DataType::kF32, options).Wait();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  });
}

}  // namespace
}  // namespace cohort::comm
