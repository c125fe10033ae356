// Machines as text: read, written and read again, and what is wrong with broken ones.
#include "comm/topology_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "comm/communicator.h"
#include "comm/locality.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using ::testing::HasSubstr;

constexpr int kNuma = 0, kSocket = 1, kHost = 2, kRack = 3, kBeyond = 4;  // places in Prices

DescribedTopology Parsed(const std::string& lines) {
  auto described = ParseTopology("cohort-topology 1\n" + lines, "t");
  EXPECT_TRUE(described.ok()) << described.status();
  return described.value_or(DescribedTopology{});
}

TEST(TopologyFile, SaysWhereRanksAre) {
  const auto even = Parsed("hosts 2 ranks 8 sockets 2 numa 4  # alike\nhosts 1 ranks 3\n").hosts;
  ASSERT_NE(even, nullptr);
  EXPECT_EQ(even->size(), 19);
  EXPECT_EQ(even->num_hosts(), 3);
  EXPECT_EQ(even->Between(0, 1), Distance::kNuma);
  EXPECT_EQ(even->Between(1, 2), Distance::kSocket);
  EXPECT_EQ(even->Between(3, 4), Distance::kHost);
  EXPECT_EQ(even->Between(0, 8), Distance::kRack);
  EXPECT_EQ(even->Between(16, 18), Distance::kHost);
  const auto round_robin =
      Parsed("rank 0 host 7 numa 0\nrank 1 host 2\nrank 2 host 7 socket 1 numa 0\n").hosts;
  ASSERT_NE(round_robin, nullptr);
  EXPECT_EQ(*round_robin, HostMap(std::vector<HostMap::Place>{{0, -1, 0}, {1, -1, -1}, {0, 1, 0}}));
  EXPECT_EQ(Parsed("").hosts, nullptr);
}

TEST(TopologyFile, LevelsThatAreNotSaidAreAsTheirNeighbours) {
  const Prices prices = Parsed("between_hosts 50 1 3\ninside_host 2 80\nrails 2\n").prices;
  EXPECT_DOUBLE_EQ(prices.price[kRack].latency, 50e-6);
  EXPECT_DOUBLE_EQ(prices.price[kBeyond].seconds_per_byte, 8e-9);
  EXPECT_DOUBLE_EQ(prices.gap[kBeyond], 3e-6);
  EXPECT_DOUBLE_EQ(prices.price[kNuma].latency, 2e-6);
  EXPECT_DOUBLE_EQ(prices.gap[kSocket], 0.1e-6);
  EXPECT_EQ(prices.rails, 2);
  const Prices inner = Parsed("inside_numa 1 100\ninside_host 3 50\n").prices;
  EXPECT_DOUBLE_EQ(inner.price[kSocket].latency, 3e-6);
  EXPECT_DOUBLE_EQ(inner.price[kRack].latency, DefaultPrices().price[kRack].latency);
  EXPECT_DOUBLE_EQ(Parsed("inside_numa 1 100\n").prices.price[kHost].latency, 1e-6);
}

TEST(TopologyFile, IsReadBackAsItWasWritten) {
  const DescribedTopology first = Parsed(
      "hosts 1 ranks 5 sockets 2 numa 4\nhosts 3 ranks 2\ninside_numa 0.37 111\nbetween_racks 7 3.3 0\n"
      "hosts_per_rack 2\nmemory_gbit_per_s 77.7\n");
  const auto again = ParseTopology(FormatTopology(first.hosts.get(), first.prices), "t");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again->hosts, *first.hosts);
  for (int level = 0; level < kNumDistances; ++level) {
    EXPECT_DOUBLE_EQ(again->prices.price[level].latency, first.prices.price[level].latency);
    EXPECT_DOUBLE_EQ(again->prices.price[level].seconds_per_byte, first.prices.price[level].seconds_per_byte);
    EXPECT_DOUBLE_EQ(again->prices.gap[level], first.prices.gap[level]);
  }
  EXPECT_EQ(again->prices.hosts_per_rack, 2);
  EXPECT_DOUBLE_EQ(again->prices.local_seconds_per_byte, first.prices.local_seconds_per_byte);
}

TEST(TopologyFile, ErrorsNameTheLineAndTheNearestKey) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "t: empty"},
      {"topology\n", "t:1: the first line must be"},
      {"cohort-topology 2\n", "t:1: the first line must be"},
      {"cohort-topology 1\n\nbetween_host 1 1\n",
       "t:3: unknown key 'between_host'; the nearest known one is 'between_hosts'"},
      {"cohort-topology 1\nrail 1\n", "nearest known one is 'rails'"},
      {"cohort-topology 1\nbetween_hosts 50\n", "t:2: between_hosts is LATENCY_US"},
      {"cohort-topology 1\nbetween_hosts nan 1\n", "t:2: between_hosts is"},
      {"cohort-topology 1\nbetween_hosts 1 0\n", "t:2: between_hosts is"},
      {"cohort-topology 1\nbetween_hosts 1 1 -1\n", "t:2: between_hosts is"},
      {"cohort-topology 1\ninside_host 1 1\ninside_host 1 1\n", "t:3: inside_host is said twice"},
      {"cohort-topology 1\nrails -1\n", "t:2: rails is a whole number"},
      {"cohort-topology 1\nrails 1 2\n", "t:2: rails is"},
      {"cohort-topology 1\nmemory_gbit_per_s 0\n", "t:2: memory_gbit_per_s is"},
      {"cohort-topology 1\nhosts 2\n", "t:2: a group of hosts is"},
      {"cohort-topology 1\nhosts 0 ranks 2\n", "t:2: a group of hosts is"},
      {"cohort-topology 1\nhosts 1 ranks 2 ranks 3\n", "t:2: a group of hosts is"},
      {"cohort-topology 1\nhosts 1 ranks 2 sockets\n", "t:2: a group of hosts is"},
      {"cohort-topology 1\nhosts 1 ranks 6 sockets 2 numa 3\n", "t:2: 3 NUMA domains"},
      {"cohort-topology 1\nhosts 1000000 ranks 1000000\n", "t:2: more than"},
      {"cohort-topology 1\nrank 0\n", "t:2: a rank is"},
      {"cohort-topology 1\nrank 1 host 0\n", "t:2: rank 1 where rank 0"},
      {"cohort-topology 1\nhosts 1 ranks 1\nrank 1 host 0\n", "t:3: either all ranks"},
      {"cohort-topology 1\nrank 0 host 0\nhosts 1 ranks 1\n", "t:3: either all ranks"},
  };
  for (const auto& [text, what] : cases) {
    const auto described = ParseTopology(text, "t");
    ASSERT_FALSE(described.ok()) << text;
    EXPECT_THAT(described.status().message(), HasSubstr(what));
  }
}

TEST(Locality, FindsPartsThatContainEachOther) {
  const Locality found = FindLocality();
  EXPECT_GE(found.threads, found.cores);
  EXPECT_GE(found.cores, found.sockets);
  EXPECT_GE(found.cores, found.last_level_caches);
  if (found.threads == 0) GTEST_SKIP() << "hwloc finds nothing here";
  EXPECT_NE(found.bound_to, "");
  if (found.sockets == 1) {
    EXPECT_GE(found.socket, 0);
  }
}

TEST(Locality, FollowsTheCoresOfTheProcess) {
  cohort::testing::RunProcesses(1, [](int, int, const std::string&) {
    cpu_set_t allowed;
    ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
    int last = -1;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &allowed)) last = cpu;
    }
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    // Every thread of it: a sanitizer's runtime has one of its own.
    for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task"))
      ASSERT_EQ(sched_setaffinity(std::stoi(thread.path().filename()), sizeof(one), &one), 0) << thread;
    const Locality found = FindLocality();
    if (found.threads == 0) return;  // hwloc finds nothing here
    EXPECT_EQ(found.bound_to, std::to_string(last));
    EXPECT_TRUE(found.sockets == 0 || found.socket >= 0);
    EXPECT_TRUE(found.numa_domains == 0 || found.numa >= 0);
  });
}

// A job under a declared topology: hosts of one machine are told apart, and wrong ones are refused by all ranks.
TEST(DeclaredTopology, CountsForMoreThanWhatIsFound) {
  cohort::testing::RunProcesses(3, [](int rank, int size, const std::string& folder) {
    const auto create = [&](const std::string& name, const std::string& lines) {
      const std::string path = folder + "/" + name + std::to_string(rank);
      std::ofstream(path) << "cohort-topology 1\n" << lines;
      return Communicator::Create(FileRendezvous(folder + "/meet-" + name, rank, size),
                                  {.timeout = absl::Seconds(20), .topology = path});
    };
    const auto comm = create("good", "rank 0 host 0\nrank 1 host 1 socket 3\nrank 2 host 1 socket 3\n");
    ASSERT_TRUE(comm.ok()) << comm.status();
    EXPECT_EQ((*comm)->topology().num_hosts(), 2);
    EXPECT_EQ((*comm)->topology().map()->Between(1, 2), Distance::kSocket);
    EXPECT_THAT((*comm)->TopologyText(), HasSubstr("rank 1 host 1 socket 3\n"));
    int32_t sum = 1;
    EXPECT_EQ((*comm)->AllReduce(&sum, &sum, 1, DataType::kI32).Wait(), absl::OkStatus());
    EXPECT_EQ(sum, 3);

    const auto small = create("small", "hosts 1 ranks 2\n");
    EXPECT_EQ(small.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(small.status().message(), HasSubstr("has 2 ranks, but the job has 3"));
    setenv("COHORT_HOST_ID", rank == 2 ? "elsewhere" : "here", 1);
    const auto apart = create("apart", "hosts 1 ranks 3\n");
    EXPECT_EQ(apart.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(apart.status().message(),
                HasSubstr("puts ranks 0 and 2 on one host, but they run on here and elsewhere"));
    // All have met before the first goes.
    EXPECT_EQ((*comm)->Barrier().Wait(), absl::OkStatus());
  });
}

}  // namespace
}  // namespace cohort::comm
