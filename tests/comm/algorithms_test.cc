// Every algorithm proved: for any number of ranks, on hosts that hold as many or different numbers of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/algorithms/algorithm.h"
#include "comm/simulator.h"
#include "tests/comm/algorithm_calls.h"

namespace cohort::comm {
namespace {

using Hosts = std::shared_ptr<const HostMap>;

struct NamedHosts {
  std::string name;
  Hosts hosts;
};

// Ways to place `size` ranks on hosts.
std::vector<NamedHosts> Placements(int size) {
  std::vector<NamedHosts> all;
  const auto add = [&](const std::string& name, const auto& host_of) {
    std::vector<int> map;
    for (int rank = 0; rank < size; ++rank) map.push_back(host_of(rank));
    all.push_back({name, std::make_shared<const HostMap>(map)});
  };
  add("a host each", [](int rank) { return rank; });
  add("fours", [](int rank) { return rank / 4; });
  add("two halves", [&](int rank) { return rank < (size + 1) / 2 ? 0 : 1; });
  add("one alone", [](int rank) { return rank == 0 ? 0 : 1 + (rank - 1) / 5; });
  add("last alone", [&](int rank) { return rank + 1 == size ? size : rank / 3; });
  add("interleaved", [](int rank) { return rank % 3; });
  add("scattered", [](int rank) { return (rank * rank + rank / 3) % 7 % 5; });
  return all;
}

bool HasInPlace(Operation operation) {
  return operation == Operation::kAllReduce || operation == Operation::kAllGather ||
         (HasRoot(operation) && operation != Operation::kBroadcast);
}

std::string TestName(const Algorithm& algorithm) {
  std::string name = absl::StrCat(Name(algorithm.operation), "_", algorithm.name);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

enum class Place { kApart, kInPlace, kMixed, kEnd };

void ExpectProved(const Algorithm& algorithm, Shape shape, int size, Place place, int root,
                  const NamedHosts& on) {
  std::vector<Collective> calls = Calls(algorithm.operation, shape, size, place == Place::kInPlace, root);
  for (Collective& call : calls) {
    if (shape >= Shape::kLong && algorithm.pipelined) call.piece = 9;
    if (place == Place::kMixed && !HasRoot(algorithm.operation))
      call.in_place = call.rank % 2 == 1;  // each rank decides for itself
  }
  SimulatedMachine machine;
  machine.hosts = on.hosts;
  const auto result = Prove(algorithm, std::move(calls), machine);
  EXPECT_TRUE(result.ok()) << algorithm.name << ", " << size << " ranks on " << on.name << ", shape "
                           << static_cast<int>(shape) << ", place " << static_cast<int>(place) << ", root "
                           << root << ": " << result.status();
}

void ExpectProved(const Algorithm& algorithm, Shape shape, int size, const NamedHosts& on) {
  for (Place place = Place::kApart; place < Place::kEnd;
       place = static_cast<Place>(static_cast<int>(place) + 1)) {
    if (place != Place::kApart && !HasInPlace(algorithm.operation)) break;
    for (const int root : {0, size / 2, size - 1}) {
      if (root != 0 && !HasRoot(algorithm.operation)) break;
      ExpectProved(algorithm, shape, size, place, root, on);
      if (::testing::Test::HasFailure()) return;
    }
  }
}

class Algorithms : public ::testing::TestWithParam<size_t> {};
class AlgorithmsByHost : public Algorithms {};

TEST_P(Algorithms, ProvedFrom1To64Ranks) {
  const Algorithm& algorithm = comm::Algorithms()[GetParam()];
  for (int size = 1; size <= 64; ++size) {
    for (const Shape shape : kShapes) {
      // Long calls exercise pieces; every size does not need them.
      if (shape == Shape::kWide || (shape == Shape::kLong && size > 9 && size % 16 != 0)) continue;
      ExpectProved(algorithm, shape, size, {"one host", nullptr});
      if (HasFailure()) return;
      if (algorithm.operation == Operation::kBarrier) break;
    }
  }
}

TEST_P(AlgorithmsByHost, ProvedOnAnyHosts) {
  const Algorithm& algorithm = comm::Algorithms()[GetParam()];
  for (const int size : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 17, 21, 32, 64}) {
    for (const NamedHosts& on : Placements(size)) {
      for (const Shape shape : kShapes) {
        if (shape == Shape::kZero || (shape >= Shape::kLong && size > 13)) continue;
        ExpectProved(algorithm, shape, size, on);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_P(Algorithms, ProvedForManyRanks) {
  const Algorithm& algorithm = comm::Algorithms()[GetParam()];
  for (const int size : {100, 128, 333, 1024}) {
    std::vector<NamedHosts> placements = {{"one host", nullptr}};
    if (algorithm.by_host) {
      std::vector<NamedHosts> all = Placements(size);
      placements = {all[1], all[3], all[6]};  // fours, one alone, scattered
    }
    for (const NamedHosts& on : placements) {
      // What sends a million messages is not for so many ranks, nor for a quick test.
      std::vector<Collective> calls = Calls(algorithm.operation, Shape::kOne, size, false, 0);
      if (algorithm.make(calls[0]).steps.size() * size > 1'000'000) continue;
      ExpectProved(algorithm, Shape::kOne, size, Place::kApart, 0, on);
      if (size < 1024) ExpectProved(algorithm, Shape::kFewerThanRanks, size, Place::kApart, 0, on);
      if (HasFailure()) return;
    }
  }
}

// Those that heed hosts; the others are the same on any.
std::vector<size_t> ByHost() {
  std::vector<size_t> indices;
  for (size_t i = 0; i < comm::Algorithms().size(); ++i) {
    if (comm::Algorithms()[i].by_host) indices.push_back(i);
  }
  return indices;
}

INSTANTIATE_TEST_SUITE_P(All, AlgorithmsByHost, ::testing::ValuesIn(ByHost()),
                         [](const auto& info) { return TestName(comm::Algorithms()[info.param]); });
INSTANTIATE_TEST_SUITE_P(All, Algorithms, ::testing::Range(size_t{0}, comm::Algorithms().size()),
                         [](const auto& info) { return TestName(comm::Algorithms()[info.param]); });

}  // namespace
}  // namespace cohort::comm
