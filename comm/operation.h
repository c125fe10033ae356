// The operations a group makes together, and the signature by which ranks notice
// that they call different ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "comm/communicator.h"
#include "comm/data_type.h"
#include "comm/host_map.h"

namespace cohort::comm {

struct TokenRoutes;  // tokens/routes.h

// X(enumerator, name).
#define COHORT_OPERATIONS(X)          \
  X(kAllReduce, "all-reduce")         \
  X(kReduceScatter, "reduce-scatter") \
  X(kAllGather, "all-gather")         \
  X(kBroadcast, "broadcast")          \
  X(kReduce, "reduce")                \
  X(kGather, "gather")                \
  X(kScatter, "scatter")              \
  X(kAllToAll, "all-to-all")          \
  X(kAllToAllV, "all-to-all-v")       \
  X(kBarrier, "barrier")              \
  X(kTokenDispatch, "token-dispatch") \
  X(kTokenCombine, "token-combine")   \
  X(kPointToPoint, "send/recv")

enum class Operation : uint8_t {
#define COHORT_X(enumerator, name) enumerator,
  COHORT_OPERATIONS(COHORT_X)
#undef COHORT_X
};

const char* Name(Operation operation);
const char* Name(ReduceOp op);

// What an operation is called with, as far as it must be equal on all ranks. Travels in every message.
struct Signature {
  Operation operation = Operation::kBarrier;
  DataType dtype = DataType::kU8;
  ReduceOp reduce = ReduceOp::kSum;
  uint8_t codec = 0;    // 1 + CodecKind where the wire is encoded
  uint32_t digest = 0;  // of the root and of the counts of every rank
  uint64_t count = 0;   // elements in total

  friend bool operator==(const Signature&, const Signature&) = default;
};
static_assert(sizeof(Signature) == 16);

// "all-reduce of 10 f32 (sum)".
std::string Describe(const Signature& signature);
// INVALID_ARGUMENT: `rank` calls `own` where its peer calls `theirs`.
absl::Status Mismatch(int peer, const Signature& theirs, int rank, const Signature& own);

// One rank's view of one call: what a schedule is made from. Counts are elements.
struct Collective {
  Operation operation = Operation::kBarrier;
  int rank = 0;
  int size = 1;
  int root = 0;      // broadcast, reduce, gather, scatter
  size_t count = 0;  // all-reduce, broadcast, reduce; token-dispatch, token-combine: of a row
  // reduce-scatter, all-gather, gather, scatter: elements of each rank. all-to-all(-v): elements this rank sends to
  // each rank.
  std::vector<size_t> counts;
  std::vector<size_t> recv_counts;  // all-to-all(-v): elements this rank gets from each rank
  // all-to-all-v, where every rank knows it: matrix[a * size + b] elements go from rank a to rank b.
  std::shared_ptr<const std::vector<size_t>> matrix;
  std::shared_ptr<const TokenRoutes> tokens;  // token-dispatch, token-combine: what this rank knows
  // all-reduce, all-gather, and at the root reduce, gather: the input lies in the output. scatter, at the root: its
  // own part stays in the input.
  bool in_place = false;
  size_t piece = 0;        // elements of a pipeline piece; 0: do not cut
  bool quantized = false;  // what crosses the wire may be encoded (codec/schedules.h)
  // Where the ranks are. Null: all on one host.
  std::shared_ptr<const HostMap> hosts;

  friend bool operator==(const Collective&, const Collective&) = default;  // maps by address
};

// Elements that the operation works on in total, as the choice of an algorithm sees it. Equal on all ranks,
// but for all-to-all-v, whose choice must not depend on it.
size_t TotalCount(const Collective& collective);

}  // namespace cohort::comm
