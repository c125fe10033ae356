// MPI_Alltoall and MPI_Alltoallv.
#include <mpi.h>

#include <vector>

#include "comm/check.h"
#include "comm/interposer/buffers.h"
#include "comm/interposer/intercept.h"

using namespace cohort::comm;              // NOLINT: below are functions of MPI
using namespace cohort::comm::interposer;  // NOLINT
using cohort::DataType;
using InterposedGroup = cohort::comm::interposer::Group;

namespace {

// `count` elements for each rank, one after the other.
absl::StatusOr<Packed> Blocks(const void* buffer, int count, MPI_Datatype type, int size, bool received) {
  const std::vector<int> counts(size, count);
  return received ? Packed::ReceivedBlocks(const_cast<void*>(buffer), counts.data(), nullptr, size, type)
                  : Packed::SentBlocks(buffer, counts.data(), nullptr, size, type);
}

std::vector<size_t> BlockBytes(const int* counts, int blocks, MPI_Datatype type) {
  std::vector<size_t> bytes(blocks);
  for (int i = 0; i < blocks; ++i) bytes[i] = BytesOf(counts[i], type).value_or(0);
  return bytes;
}

}  // namespace

extern "C" {

int MPI_Alltoall(const void* send, int send_count, MPI_Datatype send_type, void* recv, int recv_count,
                 MPI_Datatype recv_type, MPI_Comm comm) {
  return Intercept(
      Call::kAllToAll, comm,
      [&] { return PMPI_Alltoall(send, send_count, send_type, recv, recv_count, recv_type, comm); },
      [&](const InterposedGroup& group) -> std::optional<uint64_t> {
        const auto bytes = BytesOf(recv_count, recv_type);
        if (!bytes.has_value()) return std::nullopt;
        return *bytes * static_cast<uint64_t>(group.size());
      },
      [&](Communicator& communicator, Session& session) -> absl::Status {
        const int size = communicator.size();
        const bool in_place = send == MPI_IN_PLACE;
        COHORT_ASSIGN_OR_RETURN(Packed in, in_place ? Blocks(recv, recv_count, recv_type, size, false)
                                                    : Blocks(send, send_count, send_type, size, false));
        COHORT_ASSIGN_OR_RETURN(Packed out, Blocks(recv, recv_count, recv_type, size, true));
        const size_t block = *BytesOf(recv_count, recv_type);
        std::vector<std::byte> copy;  // Cohort's is not in place
        if (in_place && in.data() == out.data()) copy.assign(in.data(), in.data() + block * size);
        COHORT_RETURN_IF_ERROR(session.Wait(
            communicator.AllToAll(copy.empty() ? in.data() : copy.data(), out.data(), block, DataType::kU8)));
        return out.Unpack();
      });
}

// What a rank sends differs by rank, so the decision depends on the group alone.
int MPI_Alltoallv(const void* send, const int send_counts[], const int send_places[], MPI_Datatype send_type,
                  void* recv, const int recv_counts[], const int recv_places[], MPI_Datatype recv_type,
                  MPI_Comm comm) {
  return Intercept(
      Call::kAllToAllV, comm,
      [&] {
        return PMPI_Alltoallv(send, send_counts, send_places, send_type, recv, recv_counts, recv_places,
                              recv_type, comm);
      },
      [](const InterposedGroup&) { return std::optional<uint64_t>(kAnyBytes); },
      [&](Communicator& communicator, Session& session) -> absl::Status {
        const int size = communicator.size();
        const bool in_place = send == MPI_IN_PLACE;
        COHORT_ASSIGN_OR_RETURN(
            Packed in, in_place ? Packed::SentBlocks(recv, recv_counts, recv_places, size, recv_type)
                                : Packed::SentBlocks(send, send_counts, send_places, size, send_type));
        COHORT_ASSIGN_OR_RETURN(Packed out,
                                Packed::ReceivedBlocks(recv, recv_counts, recv_places, size, recv_type));
        const std::vector<size_t> to =
            in_place ? BlockBytes(recv_counts, size, recv_type) : BlockBytes(send_counts, size, send_type);
        const std::vector<size_t> from = BlockBytes(recv_counts, size, recv_type);
        std::vector<std::byte> copy;  // Cohort's is not in place
        size_t total = 0;
        for (const size_t bytes : to) total += bytes;
        if (in_place && in.data() == out.data()) copy.assign(in.data(), in.data() + total);
        COHORT_RETURN_IF_ERROR(session.Wait(communicator.AllToAllV(copy.empty() ? in.data() : copy.data(), to,
                                                                   out.data(), from, DataType::kU8)));
        return out.Unpack();
      });
}

}  // extern "C"
