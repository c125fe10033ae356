#include "comm/pricing.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "comm/policy.h"
#include "comm/pricing_rows.h"

namespace cohort::comm {

Distance Machine::Between(int a, int b) const {
  const Distance distance = hosts->Between(a, b);
  if (distance != Distance::kRack || hosts_per_rack == 0) return distance;
  return hosts->host_of(a) / hosts_per_rack == hosts->host_of(b) / hosts_per_rack ? Distance::kRack
                                                                                  : Distance::kBeyond;
}

namespace pricing {
namespace {

struct Row {
  Operation operation;
  const char* name;
  void (*price)(Pricer&);
};

constexpr Row kRows[] = {
    {Operation::kAllReduce, "recursive_doubling", DoublingSum},
    {Operation::kAllReduce, "ring", RingTwice},
    {Operation::kAllReduce, "all_pair", AllPair},
    {Operation::kAllReduce, "direct", Direct},
    {Operation::kAllReduce, "halving_doubling", HalvingThenDoubling},
    {Operation::kAllReduce, "double_tree", DoubleTree},
    {Operation::kAllReduce, "hierarchical", Hierarchical},
    {Operation::kAllReduce, "hierarchical_direct", HierarchicalDirect},
    {Operation::kAllReduce, "nvrar", Nvrar},
    {Operation::kAllReduce, "ho_ring", HoRing},
    {Operation::kReduceScatter, "pairwise", PairwiseOwners},
    {Operation::kReduceScatter, "ring", RingOnce},
    {Operation::kReduceScatter, "recursive_halving", Halving},
    {Operation::kReduceScatter, "hierarchical", HierarchicalReduceScatter},
    {Operation::kReduceScatter, "hierarchical_direct", HierarchicalDirectReduceScatter},
    {Operation::kReduceScatter, "leaders", LeadersReduceScatter},
    {Operation::kAllGather, "bruck", Dissemination},
    {Operation::kAllGather, "ring", RingOnce},
    {Operation::kAllGather, "pairwise", PairwiseOwn},
    {Operation::kAllGather, "recursive_doubling", AllGatherRecursiveDoubling},
    {Operation::kAllGather, "hierarchical", HierarchicalAllGather},
    {Operation::kAllGather, "hierarchical_direct", HierarchicalDirectAllGather},
    {Operation::kAllGather, "leaders", LeadersAllGather},
    {Operation::kBroadcast, "binomial", TreeDown},
    {Operation::kBroadcast, "chain", Chain},
    {Operation::kBroadcast, "scatter_all_gather", ScatterAllGather},
    {Operation::kBroadcast, "hierarchical", HierarchicalBroadcast},
    {Operation::kReduce, "direct", ToRoot},
    {Operation::kReduce, "binomial", TreeUp},
    {Operation::kReduce, "halving_gather", HalvingGather},
    {Operation::kReduce, "hierarchical", HierarchicalReduce},
    {Operation::kGather, "direct", ToRoot},
    {Operation::kGather, "binomial", TreeGather},
    {Operation::kGather, "hierarchical", HierarchicalGatherOrScatter},
    {Operation::kScatter, "direct", FromRoot},
    {Operation::kScatter, "binomial", TreeScatter},
    {Operation::kScatter, "hierarchical", HierarchicalGatherOrScatter},
    {Operation::kAllToAll, "pairwise", Exchange},
    {Operation::kAllToAll, "bruck", BruckAllToAll},
    {Operation::kAllToAll, "hierarchical", HierarchicalAllToAll},
    {Operation::kAllToAll, "leaders", LeadersAllToAll},
    {Operation::kAllToAllV, "pairwise", Exchange},
    {Operation::kAllToAllV, "hierarchical", HierarchicalAllToAll},
    {Operation::kBarrier, "dissemination", Dissemination},
};

}  // namespace
}  // namespace pricing

absl::StatusOr<Price> PriceOf(const Algorithm& algorithm, const Machine& machine, size_t count,
                              size_t element_bytes, size_t replayed, size_t piece_bytes) {
  for (const pricing::Row& row : pricing::kRows) {
    if (row.operation != algorithm.operation || algorithm.name != std::string(row.name)) continue;
    // In the order of time, where messages are few enough.
    const bool few = machine.hosts->size() <= policy::kMostRanksOrdered;
    for (size_t ordered = few ? std::min(replayed / 8, policy::kMostOrdered) : 0;; ordered = 0) {
      pricing::Clock clock(machine, element_bytes, replayed, ordered);
      pricing::Pricer pricer{
          clock, {}, count, algorithm.pipelined ? std::max<size_t>(1, piece_bytes / element_bytes) : 0};
      pricer.call.operation = algorithm.operation;
      pricer.call.size = clock.size();
      pricer.call.hosts = machine.hosts;
      row.price(pricer);
      if (!clock.too_many()) return clock.price();
    }
  }
  return absl::NotFoundError(
      absl::StrCat("no price is known for ", algorithm.name, " of ", Name(algorithm.operation)));
}

}  // namespace cohort::comm
