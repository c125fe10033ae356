// Which calls of MPI are taken over: a value, equal on all ranks of a job.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace cohort::comm::interposer {

// X(enumerator, name in COHORT_MPI_OPS and in reports, bytes from which and below which it is taken over on one host).
// Bytes are those of one rank's largest buffer, equal on all ranks by the rules of MPI; of the v-form of all-to-all no
// rank knows them, so it is all or nothing. Measured with tools/compare_interposer beside Open MPI 4.1, 2 and 4 ranks on
// two cores: where one of them was slower, it is left to MPI. Between hosts nothing was measured yet, so nothing is
// taken over unasked.
#define COHORT_INTERPOSED(X)                                      \
  X(kAllReduce, "allreduce", 4 << 10, 256 << 10)                  \
  X(kReduce, "reduce", kNever, kNever)                            \
  X(kReduceScatter, "reduce_scatter", 4 << 10, kNever)            \
  X(kReduceScatterBlock, "reduce_scatter_block", 4 << 10, kNever) \
  X(kAllGather, "allgather", 8 << 10, 1 << 20)                    \
  X(kAllGatherV, "allgatherv", 8 << 10, 1 << 20)                  \
  X(kGather, "gather", kNever, kNever)                            \
  X(kScatter, "scatter", kNever, kNever)                          \
  X(kAllToAll, "alltoall", 8 << 10, 128 << 10)                    \
  X(kAllToAllV, "alltoallv", kNever, kNever)                      \
  X(kBroadcast, "bcast", kNever, kNever)                          \
  X(kBarrier, "barrier", kNever, kNever)

inline constexpr uint64_t kNever = UINT64_MAX;
// Said of calls whose bytes no rank knows: any threshold but kNever lets them be taken over.
inline constexpr uint64_t kAnyBytes = UINT64_MAX;

enum class Call : uint8_t {
#define COHORT_X(enumerator, name, from, below) enumerator,
  COHORT_INTERPOSED(COHORT_X)
#undef COHORT_X
};
#define COHORT_X(enumerator, name, from, below) +1
inline constexpr int kNumCalls = 0 COHORT_INTERPOSED(COHORT_X);
#undef COHORT_X

const char* Name(Call call);

// ---- Waits ----

// MPI must make progress while a rank waits in a collective that was taken over: a peer may be in MPI_Recv, for data
// of a send that this rank has only begun. It gets its turn after waits of this length, and of the longer one when
// the collective takes longer than kPatientAfter.
inline constexpr absl::Duration kTurn = absl::Microseconds(100);
inline constexpr absl::Duration kPatientTurn = absl::Milliseconds(1);
inline constexpr absl::Duration kPatientAfter = absl::Seconds(1);
// How long MPI_Init waits for the ranks to connect; then all of them go on with MPI alone.
inline constexpr absl::Duration kConnect = absl::Seconds(60);

// Plain data: rank 0's goes to all.
struct Takeover {
  bool on = true;
  bool hosts = false;                       // also where ranks are on several hosts
  std::array<uint64_t, kNumCalls> from{};   // by Call; kNever: not at all
  std::array<uint64_t, kNumCalls> below{};  // kNever: no limit

  bool Takes(Call call, uint64_t bytes, bool on_one_host) const {
    const auto i = static_cast<size_t>(call);
    if (!on || from[i] == kNever || !(on_one_host || hosts)) return false;
    return bytes >= from[i] && (below[i] == kNever || bytes < below[i]);
  }
};

// The table above.
Takeover DefaultTakeover();

// The table as COHORT_MPI ("on", "off"), COHORT_MPI_OPS ("allreduce,bcast": these alone; "alltoallv=0": this one too,
// from 0 bytes, on any hosts) change it. INVALID_ARGUMENT names what is not understood, and what is possible. Null: not
// set.
absl::StatusOr<Takeover> ParseTakeover(const char* mode, const char* ops);

}  // namespace cohort::comm::interposer
