#include <algorithm>

#include "comm/algorithms/algorithm.h"
#include "comm/algorithms/policy.h"

namespace cohort::comm {
namespace {

// A new algorithm is a file and a row here. p: ranks, n: bytes of the whole operation.
constexpr Algorithm kAlgorithms[] = {
    {Operation::kAllReduce, "recursive_doubling", "log2 p exchanges of everything; least latency",
     algorithms::RecursiveDoublingAllReduce, false},
    {Operation::kAllReduce, "ring", "2(p-1) steps of n/p; fewest bytes", algorithms::RingAllReduce, true},
    {Operation::kAllReduce, "all_pair", "everyone reads and sums everything; one round, p-1 times the bytes",
     algorithms::AllPairAllReduce, false},
    {Operation::kAllReduce, "direct", "each rank sums its part of everybody's, then reads the other parts",
     algorithms::DirectAllReduce, false},
    {Operation::kAllReduce, "halving_doubling", "2 log2 p rounds, fewest bytes (Rabenseifner)",
     algorithms::HalvingDoublingAllReduce, false},
    {Operation::kAllReduce, "double_tree", "up and down two binary trees, half the data on each",
     algorithms::DoubleTreeAllReduce, true},
    {Operation::kAllReduce, "hierarchical",
     "reduce-scatter inside hosts, halving-doubling across, all-gather inside; fewest bytes between hosts",
     algorithms::HierarchicalAllReduce, true, true},
    {Operation::kAllReduce, "hierarchical_direct",
     "the same with direct exchanges across: two rounds, for few hosts",
     algorithms::HierarchicalDirectAllReduce, true, true},
    {Operation::kAllReduce, "nvrar",
     "reduce-scatter inside hosts, recursive doubling across, all-gather inside; fewest rounds between hosts",
     algorithms::NvrarAllReduce, true, true},
    {Operation::kAllReduce, "ho_ring", "rings inside hosts and across them at once",
     algorithms::HoRingAllReduce, true, true},
    {Operation::kReduceScatter, "pairwise",
     "each rank reads its part from every other; p-1 messages, no scratch", algorithms::PairwiseReduceScatter,
     false},
    {Operation::kReduceScatter, "ring", "p-1 steps between neighbours", algorithms::RingReduceScatter, true},
    {Operation::kReduceScatter, "recursive_halving", "log2 p rounds, fewest bytes",
     algorithms::RecursiveHalvingReduceScatter, false},
    {Operation::kReduceScatter, "hierarchical", "sums inside hosts by reading, each crosses to its host once",
     algorithms::HierarchicalReduceScatter, false, true},
    {Operation::kReduceScatter, "hierarchical_direct", "the same with direct exchanges across, in one round",
     algorithms::HierarchicalDirectReduceScatter, false, true},
    {Operation::kReduceScatter, "leaders",
     "one rank of a host sums, exchanges and hands out; for small parts", algorithms::LeadersReduceScatter,
     false, true},
    {Operation::kAllGather, "recursive_doubling", "log2 p exchanges of ranges; powers of two best",
     algorithms::RecursiveDoublingAllGather, false},
    {Operation::kAllGather, "bruck", "log2 p steps of doubling size; least latency",
     algorithms::BruckAllGather, false},
    {Operation::kAllGather, "ring", "p-1 steps between neighbours", algorithms::RingAllGather, true},
    {Operation::kAllGather, "pairwise", "each rank reads the part of every other; p-1 messages",
     algorithms::PairwiseAllGather, false},
    {Operation::kAllGather, "hierarchical", "each part crosses to a host once and is read there",
     algorithms::HierarchicalAllGather, false, true},
    {Operation::kAllGather, "hierarchical_direct", "the same with direct exchanges across, in one round",
     algorithms::HierarchicalDirectAllGather, false, true},
    {Operation::kAllGather, "leaders",
     "one rank of a host collects, exchanges and hands out; for small parts", algorithms::LeadersAllGather,
     false, true},
    {Operation::kBroadcast, "binomial", "a tree of depth log2 p; least latency",
     algorithms::BinomialBroadcast, false},
    {Operation::kBroadcast, "chain", "pieces handed on from rank to rank; most bandwidth",
     algorithms::ChainBroadcast, true},
    {Operation::kBroadcast, "scatter_all_gather", "2 log2 p rounds; no rank sends more than 2n",
     algorithms::ScatterAllGatherBroadcast, false},
    {Operation::kBroadcast, "hierarchical", "one rank a host gets it, the others read it there",
     algorithms::HierarchicalBroadcast, true, true},
    {Operation::kReduce, "direct", "the root reads and sums everything; one round", algorithms::DirectReduce,
     false},
    {Operation::kReduce, "binomial", "a tree of depth log2 p; least latency", algorithms::BinomialReduce,
     false},
    {Operation::kReduce, "halving_gather", "2 log2 p rounds; no rank sends more than 2n",
     algorithms::HalvingGatherReduce, false},
    {Operation::kReduce, "hierarchical",
     "one rank a host sums by reading, these sum across; n a host crosses", algorithms::HierarchicalReduce,
     true, true},
    {Operation::kGather, "direct", "everyone sends to the root; fewest bytes", algorithms::DirectGather,
     false},
    {Operation::kGather, "binomial", "a tree of depth log2 p; fewest messages for the root",
     algorithms::BinomialGather, false},
    {Operation::kGather, "hierarchical", "one message from every host", algorithms::HierarchicalGather, false,
     true},
    {Operation::kScatter, "direct", "the root sends to everyone; fewest bytes", algorithms::DirectScatter,
     false},
    {Operation::kScatter, "binomial", "a tree of depth log2 p; fewest messages for the root",
     algorithms::BinomialScatter, false},
    {Operation::kScatter, "hierarchical", "one message to every host", algorithms::HierarchicalScatter, false,
     true},
    {Operation::kAllToAll, "pairwise", "p-1 exchanges, each with another rank", algorithms::PairwiseAllToAll,
     true},
    {Operation::kAllToAll, "bruck", "log2 p messages, of half of everything", algorithms::BruckAllToAll,
     false},
    {Operation::kAllToAll, "hierarchical", "one message for every pair of hosts",
     algorithms::HierarchicalAllToAll, false, true},
    {Operation::kAllToAll, "leaders",
     "one message for every pair of hosts, everything through one rank of each; for small blocks",
     algorithms::LeadersAllToAll, false, true},
    {Operation::kAllToAllV, "pairwise", "p-1 exchanges, each with another rank", algorithms::PairwiseAllToAll,
     true},
    {Operation::kAllToAllV, "hierarchical", "one message for every pair of hosts, where all counts are known",
     algorithms::HierarchicalAllToAll, false, true},
    {Operation::kBarrier, "dissemination", "log2 p rounds of signals", algorithms::DisseminationBarrier,
     false},
};

}  // namespace

absl::Span<const Algorithm> Algorithms() { return kAlgorithms; }

const Algorithm* FindAlgorithm(Operation operation, absl::string_view name) {
  for (const Algorithm& algorithm : kAlgorithms) {
    if (algorithm.operation == operation && algorithm.name == name) return &algorithm;
  }
  return nullptr;
}

namespace algorithms {

Slice Input(const Collective& collective, size_t offset, size_t count) {
  return {collective.in_place ? Buffer::kOutput : Buffer::kInput, offset, count};
}

std::vector<size_t> Offsets(absl::Span<const size_t> counts) {
  std::vector<size_t> offsets(counts.size() + 1, 0);
  for (size_t i = 0; i < counts.size(); ++i) offsets[i + 1] = offsets[i] + counts[i];
  return offsets;
}

Range Part(size_t count, size_t parts, size_t index) {
  const size_t share = count / parts;
  const size_t longer = count % parts;  // the first ones have one element more
  return {index * share + std::min(index, longer), share + (index < longer ? 1 : 0)};
}

size_t NumPieces(const Collective& collective, size_t count) {
  if (collective.piece == 0 || count <= collective.piece) return 1;
  return std::min(policy::kMaxPieces, (count + collective.piece - 1) / collective.piece);
}

}  // namespace algorithms
}  // namespace cohort::comm
