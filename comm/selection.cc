#include "comm/selection.h"

#include <algorithm>

#include "comm/check.h"
#include "comm/policy.h"

namespace cohort::comm {
namespace {

const char* ChooseName(const Collective& collective, size_t bytes) {
  switch (collective.operation) {
    case Operation::kAllReduce:
      return bytes <= policy::kSmallAllReduceBytes ? "recursive_doubling" : "ring";
    case Operation::kReduceScatter:
      return collective.size <= policy::kPairwiseRanks ? "pairwise" : "ring";
    case Operation::kAllGather:
      return bytes <= policy::kSmallAllGatherBytes ? "bruck" : "ring";
    case Operation::kBroadcast:
      return bytes <= policy::kSmallBroadcastBytes || collective.size <= 2 ? "binomial" : "chain";
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
