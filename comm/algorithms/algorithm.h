// The table of algorithms, and what they share.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "comm/operation.h"
#include "comm/schedule.h"

namespace cohort::comm {

// Makes the schedule of one rank. Pure: the same arguments on any machine give the same schedule.
using MakeSchedule = Schedule (*)(const Collective& collective);

struct Algorithm {
  Operation operation;
  const char* name;
  const char* description;
  MakeSchedule make;
  bool pipelined;        // heeds Collective::piece
  bool by_host = false;  // heeds Collective::hosts
};

// Every algorithm, grouped by operation. The chooser, the simulator's tests and
// the benchmarks iterate over it.
absl::Span<const Algorithm> Algorithms();

// The row of that name, or nullptr.
const Algorithm* FindAlgorithm(Operation operation, absl::string_view name);

namespace algorithms {

// Where the input lies: in the output itself where the call is in place.
Slice Input(const Collective& collective, size_t offset, size_t count);

// Where the elements of rank r begin in a buffer laid out by counts; element size() is the total.
std::vector<size_t> Offsets(absl::Span<const size_t> counts);

// Part `index` of `count` elements cut into `parts` nearly equal ones.
struct Range {
  size_t begin = 0;
  size_t count = 0;
};
Range Part(size_t count, size_t parts, size_t index);

// Into how many pieces `count` elements are cut: one where collective.piece is 0.
size_t NumPieces(const Collective& collective, size_t count);

inline int Modulo(int value, int size) { return ((value % size) + size) % size; }

// One a file, of the same name; beside it, in the same file, what differs from it by one step.
Schedule RingAllReduce(const Collective& collective);
Schedule RecursiveDoublingAllReduce(const Collective& collective);
Schedule AllPairAllReduce(const Collective& collective);
Schedule DirectAllReduce(const Collective& collective);
Schedule HalvingDoublingAllReduce(const Collective& collective);
Schedule DoubleTreeAllReduce(const Collective& collective);
Schedule HierarchicalAllReduce(const Collective& collective);
Schedule HierarchicalDirectAllReduce(const Collective& collective);
Schedule NvrarAllReduce(const Collective& collective);
Schedule HoRingAllReduce(const Collective& collective);
Schedule RingReduceScatter(const Collective& collective);
Schedule PairwiseReduceScatter(const Collective& collective);
Schedule RecursiveHalvingReduceScatter(const Collective& collective);
Schedule HierarchicalReduceScatter(const Collective& collective);
Schedule HierarchicalDirectReduceScatter(const Collective& collective);
Schedule LeadersReduceScatter(const Collective& collective);
Schedule RingAllGather(const Collective& collective);
Schedule BruckAllGather(const Collective& collective);
Schedule PairwiseAllGather(const Collective& collective);
Schedule RecursiveDoublingAllGather(const Collective& collective);
Schedule HierarchicalAllGather(const Collective& collective);
Schedule HierarchicalDirectAllGather(const Collective& collective);
Schedule LeadersAllGather(const Collective& collective);
Schedule BinomialBroadcast(const Collective& collective);
Schedule ChainBroadcast(const Collective& collective);
Schedule ScatterAllGatherBroadcast(const Collective& collective);
Schedule HierarchicalBroadcast(const Collective& collective);
Schedule DirectReduce(const Collective& collective);
Schedule BinomialReduce(const Collective& collective);
Schedule HalvingGatherReduce(const Collective& collective);
Schedule HierarchicalReduce(const Collective& collective);
Schedule DirectGather(const Collective& collective);
Schedule BinomialGather(const Collective& collective);
Schedule HierarchicalGather(const Collective& collective);
Schedule DirectScatter(const Collective& collective);
Schedule BinomialScatter(const Collective& collective);
Schedule HierarchicalScatter(const Collective& collective);
Schedule PairwiseAllToAll(const Collective& collective);
Schedule BruckAllToAll(const Collective& collective);
Schedule HierarchicalAllToAll(const Collective& collective);
Schedule LeadersAllToAll(const Collective& collective);
Schedule DisseminationBarrier(const Collective& collective);

}  // namespace algorithms
}  // namespace cohort::comm
