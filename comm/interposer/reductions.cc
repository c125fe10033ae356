// The reductions of MPI, and its barrier.
#include <mpi.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "comm/check.h"
#include "comm/interposer/buffers.h"
#include "comm/interposer/intercept.h"

namespace cohort::comm::interposer {
namespace {

std::optional<uint64_t> ReducedBytes(int64_t count, MPI_Datatype type, MPI_Op op) {
  const auto reduction = FindReduction(type, op);
  if (!reduction.has_value() || count < 0) return std::nullopt;
  return static_cast<uint64_t>(count) * SizeOf(reduction->dtype);
}

// Cohort's reduce-scatter is not in place: what lies where the result goes is copied first.
absl::Status ReduceScatter(Communicator& communicator, Session& session, const void* send, void* recv,
                           const std::vector<size_t>& counts, const Reduction& reduction) {
  std::vector<std::byte> copy;
  if (send == MPI_IN_PLACE) {
    const size_t total = std::accumulate(counts.begin(), counts.end(), size_t{0});
    const auto* begin = static_cast<const std::byte*>(recv);
    copy.assign(begin, begin + total * SizeOf(reduction.dtype));
    send = copy.data();
  }
  return session.Wait(communicator.ReduceScatter(send, recv, counts, reduction.dtype, reduction.op));
}

}  // namespace
}  // namespace cohort::comm::interposer

using namespace cohort::comm;              // NOLINT: below are functions of MPI
using namespace cohort::comm::interposer;  // NOLINT
using InterposedGroup = cohort::comm::interposer::Group;

extern "C" {

int MPI_Allreduce(const void* send, void* recv, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
  return Intercept(
      Call::kAllReduce, comm, [&] { return PMPI_Allreduce(send, recv, count, type, op, comm); },
      [&](const InterposedGroup&) { return ReducedBytes(count, type, op); },
      [&](Communicator& communicator, Session& session) {
        const Reduction reduction = *FindReduction(type, op);
        return session.Wait(communicator.AllReduce(send == MPI_IN_PLACE ? recv : send, recv, count,
                                                   reduction.dtype, reduction.op));
      });
}

int MPI_Reduce(const void* send, void* recv, int count, MPI_Datatype type, MPI_Op op, int root,
               MPI_Comm comm) {
  return Intercept(
      Call::kReduce, comm, [&] { return PMPI_Reduce(send, recv, count, type, op, root, comm); },
      [&](const InterposedGroup& group) -> std::optional<uint64_t> {
        if (root < 0 || root >= group.size()) return std::nullopt;
        return ReducedBytes(count, type, op);
      },
      [&](Communicator& communicator, Session& session) {
        const Reduction reduction = *FindReduction(type, op);
        return session.Wait(communicator.Reduce(send == MPI_IN_PLACE ? recv : send, recv, count,
                                                reduction.dtype, root, reduction.op));
      });
}

int MPI_Reduce_scatter(const void* send, void* recv, const int counts[], MPI_Datatype type, MPI_Op op,
                       MPI_Comm comm) {
  return Intercept(
      Call::kReduceScatter, comm, [&] { return PMPI_Reduce_scatter(send, recv, counts, type, op, comm); },
      [&](const InterposedGroup& group) -> std::optional<uint64_t> {
        int64_t total = 0;
        for (int rank = 0; counts != nullptr && rank < group.size(); ++rank) {
          if (counts[rank] < 0) return std::nullopt;
          total += counts[rank];
        }
        return counts == nullptr ? std::nullopt : ReducedBytes(total, type, op);
      },
      [&](Communicator& communicator, Session& session) {
        return ReduceScatter(communicator, session, send, recv,
                             std::vector<size_t>(counts, counts + communicator.size()),
                             *FindReduction(type, op));
      });
}

int MPI_Reduce_scatter_block(const void* send, void* recv, int count, MPI_Datatype type, MPI_Op op,
                             MPI_Comm comm) {
  return Intercept(
      Call::kReduceScatterBlock, comm,
      [&] { return PMPI_Reduce_scatter_block(send, recv, count, type, op, comm); },
      [&](const InterposedGroup& group) {
        return ReducedBytes(static_cast<int64_t>(count) * group.size(), type, op);
      },
      [&](Communicator& communicator, Session& session) {
        return ReduceScatter(communicator, session, send, recv,
                             std::vector<size_t>(communicator.size(), count), *FindReduction(type, op));
      });
}

int MPI_Barrier(MPI_Comm comm) {
  return Intercept(
      Call::kBarrier, comm, [&] { return PMPI_Barrier(comm); },
      [](const InterposedGroup&) { return std::optional<uint64_t>(0); },
      [](Communicator& communicator, Session& session) { return session.Wait(communicator.Barrier()); });
}

}  // extern "C"
