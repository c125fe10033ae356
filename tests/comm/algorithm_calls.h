// Calls to prove algorithms with, and the proof.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "comm/algorithms/algorithm.h"
#include "comm/simulator.h"

namespace cohort::comm {

enum class Shape { kZero, kOne, kFewerThanRanks, kUneven, kLong, kWide };
constexpr Shape kShapes[] = {Shape::kZero,   Shape::kOne,  Shape::kFewerThanRanks,
                             Shape::kUneven, Shape::kLong, Shape::kWide};

inline size_t Total(Shape shape, int size) {
  switch (shape) {
    case Shape::kZero:
      return 0;
    case Shape::kOne:
      return 1;
    case Shape::kFewerThanRanks:
      return static_cast<size_t>(size) / 2;
    case Shape::kUneven:
      return 3 * static_cast<size_t>(size) + 1;
    case Shape::kLong:
      return 40 * static_cast<size_t>(size) + 7;
    case Shape::kWide:  // enough for several rails
      return 600 * static_cast<size_t>(size) + 11;
  }
  return 0;
}

// Of rank `rank`; uneven in its own way for the operations with counts.
inline size_t Share(Shape shape, int rank, int size) {
  switch (shape) {
    case Shape::kZero:
      return 0;
    case Shape::kOne:
      return rank == size / 2 ? 1 : 0;
    case Shape::kFewerThanRanks:
      return rank % 2;
    case Shape::kUneven:
      return rank % 5 == 3 ? 0 : static_cast<size_t>(rank * 7 % 4);
    case Shape::kLong:
      return 40;
    case Shape::kWide:
      return 600 + static_cast<size_t>(rank);
  }
  return 0;
}

inline bool HasRoot(Operation operation) {
  return operation == Operation::kBroadcast || operation == Operation::kReduce ||
         operation == Operation::kGather || operation == Operation::kScatter;
}

inline std::vector<Collective> Calls(Operation operation, Shape shape, int size, bool in_place, int root) {
  Collective c;
  c.operation = operation;
  c.size = size;
  c.root = root;
  c.in_place = in_place;
  switch (operation) {
    case Operation::kAllReduce:
    case Operation::kBroadcast:
    case Operation::kReduce:
      c.count = Total(shape, size);
      break;
    case Operation::kReduceScatter:
    case Operation::kAllGather:
    case Operation::kGather:
    case Operation::kScatter:
      for (int rank = 0; rank < size; ++rank) c.counts.push_back(Share(shape, rank, size));
      break;
    default:
      break;
  }
  if (HasRoot(operation) && operation != Operation::kBroadcast) {  // in place is the root's
    std::vector<Collective> calls = ForAllRanks(c);
    for (Collective& call : calls) call.in_place = in_place && call.rank == root;
    return calls;
  }
  std::vector<Collective> calls = ForAllRanks(c);
  if (operation == Operation::kAllToAll || operation == Operation::kAllToAllV) {
    const bool equal = operation == Operation::kAllToAll;
    std::vector<size_t> matrix;
    for (int from = 0; from < size; ++from) {
      for (int to = 0; to < size; ++to) {
        const size_t count = equal ? Total(shape, size) % 23 : Share(shape, (from + 3 * to) % size, size);
        calls[from].counts.push_back(count);
        calls[to].recv_counts.push_back(count);
        matrix.push_back(count);
      }
    }
    if (!equal) {
      const auto known = std::make_shared<const std::vector<size_t>>(std::move(matrix));
      for (Collective& call : calls) call.matrix = known;
    }
  }
  return calls;
}

inline absl::StatusOr<Simulation> Prove(const Algorithm& algorithm, std::vector<Collective> calls,
                                        const SimulatedMachine& machine = {}, size_t element_bytes = 4) {
  std::vector<Schedule> schedules;
  for (Collective& call : calls) {
    call.hosts = machine.hosts;
    schedules.push_back(algorithm.make(call));
  }
  return Simulate(calls, schedules, element_bytes, machine);
}

}  // namespace cohort::comm
