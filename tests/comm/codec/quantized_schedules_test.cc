// The schedules with a codec, proved by the simulator, and the bytes they send to other hosts.
#include "comm/codec/schedules.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "comm/codec/codec.h"
#include "comm/simulator.h"

namespace cohort::comm {
namespace {

std::vector<Collective> Calls(Operation operation, const std::vector<int>& host_of, size_t count,
                              bool in_place) {
  Collective c;
  c.operation = operation;
  c.size = static_cast<int>(host_of.size());
  c.hosts = std::make_shared<const HostMap>(host_of);
  c.quantized = true;
  c.in_place = in_place;
  if (operation == Operation::kAllReduce) c.count = count;
  const auto share = [&](int a, int b) {
    return count == 1 ? size_t(a == c.size / 2) : count / c.size + (a + b) % 3;
  };
  if (operation == Operation::kReduceScatter || operation == Operation::kAllGather) {
    for (int rank = 0; rank < c.size; ++rank) c.counts.push_back(rank == 2 ? 0 : share(rank, 0));
  }
  std::vector<Collective> calls = ForAllRanks(c);
  if (operation == Operation::kAllToAll || operation == Operation::kAllToAllV) {
    for (int from = 0; from < c.size; ++from) {
      for (int to = 0; to < c.size; ++to) {
        const size_t elements = operation == Operation::kAllToAll ? count : share(from, 2 * to);
        calls[from].counts.push_back(elements);
        calls[to].recv_counts.push_back(elements);
      }
    }
  }
  return calls;
}

// Bytes to other hosts.
size_t RemoteBytes(const std::vector<Schedule>& schedules, const HostMap& hosts, const Codec& codec) {
  size_t bytes = 0;
  for (size_t rank = 0; rank < schedules.size(); ++rank) {
    for (const Step& step : schedules[rank].steps) {
      if (step.kind != StepKind::kSend || hosts.SameHost(static_cast<int>(rank), step.peer)) continue;
      EXPECT_EQ(step.source.buffer, Buffer::kWire) << "nothing crosses as it is";
      bytes += codec.EncodedBytes(step.source.count);
    }
  }
  return bytes;
}

std::vector<int> HostsOf(const std::vector<int>& ranks_on) {
  std::vector<int> host_of;
  for (size_t host = 0; host < ranks_on.size(); ++host) {
    host_of.insert(host_of.end(), ranks_on[host], static_cast<int>(host));
  }
  return host_of;
}

const std::vector<std::vector<int>> kMachines = {{1},    {2},    {5},       {1, 1},       {2, 2},
                                                 {3, 1}, {1, 4}, {2, 3, 1}, {4, 4, 4, 4}, {1, 2, 3, 4, 5}};

TEST(QuantizedSchedulesTest, ProvedOnEvenAndUnevenHosts) {
  for (const Algorithm& algorithm : QuantizedAlgorithms()) {
    for (const auto& machine : kMachines) {
      std::vector<int> host_of = HostsOf(machine);
      for (const bool dealt : {false, true}) {
        // Ranks dealt to the hosts in turn, as far as they go.
        if (dealt) std::reverse(host_of.begin() + 1, host_of.end());
        for (const size_t count : {size_t{0}, size_t{1}, size_t{300}, size_t{9001}, size_t{200000}}) {
          const bool can =
              algorithm.operation == Operation::kAllReduce || algorithm.operation == Operation::kAllGather;
          for (int in_place = 0; in_place <= (can ? 1 : 0); ++in_place) {
            std::vector<Collective> calls = Calls(algorithm.operation, host_of, count, in_place != 0);
            std::vector<Schedule> schedules;
            for (const Collective& call : calls) {
              Collective cut = call;
              schedules.push_back(SelectQuantized(cut).make(cut));
            }
            const auto result = Simulate(calls, schedules, 4, {});
            ASSERT_TRUE(result.ok()) << Name(algorithm.operation) << " on " << machine.size() << " hosts of "
                                     << machine[0] << "…, " << count << " elements: " << result.status();
          }
        }
      }
    }
  }
}

TEST(QuantizedSchedulesTest, Int8AllReduceSendsAtMost27PercentOfTheBytes) {
  for (const auto& machine : kMachines) {
    const int hosts = static_cast<int>(machine.size());
    if (hosts == 1) continue;
    const size_t count = (16 << 20) / 4;
    std::vector<Collective> calls = Calls(Operation::kAllReduce, HostsOf(machine), count, false);
    std::vector<Schedule> schedules;
    for (Collective& call : calls) schedules.push_back(SelectQuantized(call).make(call));
    // The fewest that f32 can do with: every host sends 2(H-1)/H of the buffer.
    const double fewest = 2.0 * (hosts - 1) * static_cast<double>(count) * 4;
    const auto bytes =
        static_cast<double>(RemoteBytes(schedules, *calls[0].hosts, GetCodec(CodecKind::kInt8)));
    EXPECT_LE(bytes / fewest, 0.27) << hosts << " hosts";
    EXPECT_GE(bytes / fewest, 0.25) << hosts << " hosts";
  }
}

TEST(QuantizedSchedulesTest, OtherOperationsSendEveryPartOnceEncoded) {
  const std::vector<int> host_of = HostsOf({2, 3, 1});
  const HostMap hosts(host_of);
  for (const Operation operation : {Operation::kReduceScatter, Operation::kAllGather}) {
    const std::vector<Collective> calls = Calls(operation, host_of, 60000, false);
    std::vector<Schedule> schedules;
    for (Collective call : calls) schedules.push_back(SelectQuantized(call).make(call));
    const size_t total = std::accumulate(calls[0].counts.begin(), calls[0].counts.end(), size_t{0});
    // Each part to, or from, each of the two other hosts.
    const auto bytes = static_cast<double>(RemoteBytes(schedules, hosts, GetCodec(CodecKind::kInt8)));
    EXPECT_LE(bytes, 0.27 * 4 * 2 * static_cast<double>(total)) << Name(operation);
  }
}

TEST(QuantizedSchedulesTest, WhatIsEncodedIsOnlyCopied) {
  ScheduleBuilder builder(0, 600);
  const Slice wire = builder.Wire(600);
  const Slice output{Buffer::kOutput, 0, 600};
  const StepId first = builder.Copy(output, wire);
  builder.Reduce(output, wire, {first});
  const Schedule added = std::move(builder).Build();
  EXPECT_FALSE(Validate(added, 0, 1).ok());
  ScheduleBuilder inside(0, 600);
  inside.Copy(output.Part(0, 300), inside.Wire(600).Part(100, 300));
  EXPECT_FALSE(Validate(std::move(inside).Build(), 0, 1).ok());
}

}  // namespace
}  // namespace cohort::comm
