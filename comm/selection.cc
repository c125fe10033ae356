#include "comm/selection.h"

#include <algorithm>

#include "comm/check.h"
#include "comm/policy.h"

namespace cohort::comm {
namespace {

const char* ChooseAllReduce(const Collective& c, size_t bytes) {
  if (c.hosts == nullptr || c.hosts->num_hosts() == 1) {
    if (bytes <= policy::kSmallAllReduceBytes) return "recursive_doubling";
    return c.size <= policy::kPairwiseRanks ? "direct" : "ring";
  }
  if (c.hosts->most_on_a_host() == 1) {
    const bool small =
        bytes <= policy::kSmallAllReduceBytes || c.size == 2;  // for two, also the fewest bytes
    return small ? "recursive_doubling" : "halving_doubling";
  }
  const bool few_rounds = bytes <= policy::kSmallAllReduceBytes || c.hosts->num_hosts() == 2;
  return few_rounds ? "nvrar" : "hierarchical";
}

// One host: reading is cheap, and as few steps as possible. Hosts of one rank each: fewest rounds. Others:
// every byte crosses to a host once.
const char* ChooseName(const Collective& collective, size_t bytes) {
  const bool one_host = collective.hosts == nullptr || collective.hosts->num_hosts() == 1;
  const bool one_rank_a_host = !one_host && collective.hosts->most_on_a_host() == 1;
  const bool few = collective.size <= policy::kPairwiseRanks;
  switch (collective.operation) {
    case Operation::kAllReduce:
      return ChooseAllReduce(collective, bytes);
    case Operation::kReduceScatter:
      if (one_host) return few ? "pairwise" : "ring";
      return one_rank_a_host ? "recursive_halving" : "hierarchical";
    case Operation::kAllGather:
      if (one_host) return few ? "pairwise" : bytes <= policy::kSmallAllGatherBytes ? "bruck" : "ring";
      return one_rank_a_host ? "bruck" : "hierarchical";
    case Operation::kBroadcast:
      if (one_host && (bytes <= policy::kSmallBroadcastBytes || collective.size <= 2)) return "binomial";
      return one_host && !few ? "chain" : "hierarchical";
    case Operation::kReduce:
      return bytes <= policy::kSmallAllReduceBytes ? "binomial" : "halving_gather";
    case Operation::kGather:
    case Operation::kScatter:
      return "direct";
    case Operation::kAllToAll:
    case Operation::kAllToAllV:
      return "pairwise";
    case Operation::kBarrier:
      return "dissemination";
    case Operation::kPointToPoint:
      break;
  }
  return "";
}

}  // namespace

const Algorithm& Select(Collective& collective, size_t element_bytes) {
  const char* name = ChooseName(collective, TotalCount(collective) * element_bytes);
  const Algorithm* algorithm = FindAlgorithm(collective.operation, name);
  COHORT_CHECK(algorithm != nullptr, "no algorithm '%s' for %s", name, Name(collective.operation));
  if (algorithm->pipelined) collective.piece = std::max<size_t>(1, policy::kPieceBytes / element_bytes);
  return *algorithm;
}

}  // namespace cohort::comm
