#include "comm/operation.h"

#include <numeric>

#include "absl/strings/str_cat.h"
#include "comm/codec/codec.h"
#include "comm/tokens/routes.h"

namespace cohort::comm {

const char* Name(Operation operation) {
  switch (operation) {
#define COHORT_X(enumerator, name) \
  case Operation::enumerator:      \
    return name;
    COHORT_OPERATIONS(COHORT_X)
#undef COHORT_X
  }
  return "unknown operation";
}

const char* Name(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return "sum";
    case ReduceOp::kMin:
      return "min";
    case ReduceOp::kMax:
      return "max";
    case ReduceOp::kProduct:
      return "product";
  }
  return "unknown reduction";
}

std::string Describe(const Signature& signature) {
  std::string text = Name(signature.operation);
  if (signature.operation == Operation::kBarrier) return text;
  if (signature.operation == Operation::kAllToAllV) return absl::StrCat(text, " of ", Name(signature.dtype));
  absl::StrAppend(&text, " of ", signature.count, " ", Name(signature.dtype));
  if (signature.operation == Operation::kAllReduce || signature.operation == Operation::kReduceScatter ||
      signature.operation == Operation::kReduce) {
    absl::StrAppend(&text, " (", Name(signature.reduce), ")");
  }
  if (signature.codec != 0) {
    absl::StrAppend(&text, " as ", GetCodec(static_cast<CodecKind>(signature.codec - 1)).name);
  }
  return text;
}

absl::Status Mismatch(int peer, const Signature& theirs, int rank, const Signature& own) {
  return absl::InvalidArgumentError(absl::StrCat(
      "rank ", peer, " calls ", Describe(theirs), " where this rank (", rank, ") calls ", Describe(own),
      ": all ranks must call the same operations in the same order with matching sizes"));
}

size_t TotalCount(const Collective& collective) {
  switch (collective.operation) {
    case Operation::kAllReduce:
    case Operation::kBroadcast:
    case Operation::kReduce:
    case Operation::kPointToPoint:
      return collective.count;
    case Operation::kReduceScatter:
    case Operation::kAllGather:
    case Operation::kGather:
    case Operation::kScatter:
    case Operation::kAllToAll:
    case Operation::kAllToAllV:
      return std::accumulate(collective.counts.begin(), collective.counts.end(), size_t{0});
    case Operation::kTokenDispatch:
      return collective.count * collective.tokens->own.size();
    case Operation::kTokenCombine:
      return collective.count * collective.tokens->num_received();
    case Operation::kBarrier:
      return 0;
  }
  return 0;
}

}  // namespace cohort::comm
