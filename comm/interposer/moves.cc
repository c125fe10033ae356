// The collectives of MPI that only move data. Ranks may describe the same data by different types, so what they decide
// by is bytes, and types with gaps are packed.
#include <mpi.h>

#include <numeric>
#include <vector>

#include "comm/check.h"
#include "comm/interposer/buffers.h"
#include "comm/interposer/intercept.h"

namespace cohort::comm::interposer {
namespace {

constexpr DataType kBytes = DataType::kU8;

std::optional<uint64_t> Times(std::optional<uint64_t> bytes, int size) {
  if (bytes.has_value()) *bytes *= static_cast<uint64_t>(size);
  return bytes;
}

bool ValidRoot(const Group& group, int root) { return root >= 0 && root < group.size(); }

// Bytes of each block.
std::vector<size_t> BlockBytes(const int* counts, int blocks, MPI_Datatype type) {
  std::vector<size_t> bytes(blocks);
  for (int i = 0; i < blocks; ++i) bytes[i] = BytesOf(counts[i], type).value_or(0);
  return bytes;
}

// Counts are those of the receiving side, a block a rank.
absl::Status AllGather(Communicator& communicator, Session& session, const void* send, int send_count,
                       MPI_Datatype send_type, void* recv, const int* counts, const int* places,
                       MPI_Datatype recv_type) {
  const int size = communicator.size(), rank = communicator.rank();
  const std::vector<size_t> bytes = BlockBytes(counts, size, recv_type);
  if (send == MPI_IN_PLACE) {  // what lies there already is packed along
    COHORT_ASSIGN_OR_RETURN(Packed all, Packed::SentBlocks(recv, counts, places, size, recv_type));
    const std::byte* own = all.data() + std::accumulate(bytes.begin(), bytes.begin() + rank, size_t{0});
    COHORT_RETURN_IF_ERROR(session.Wait(communicator.AllGather(own, all.data(), bytes, kBytes)));
    return all.Unpack();
  }
  COHORT_ASSIGN_OR_RETURN(Packed in, Packed::Sent(send, send_count, send_type));
  COHORT_ASSIGN_OR_RETURN(Packed out, Packed::ReceivedBlocks(recv, counts, places, size, recv_type));
  COHORT_RETURN_IF_ERROR(session.Wait(communicator.AllGather(in.data(), out.data(), bytes, kBytes)));
  return out.Unpack();
}

}  // namespace
}  // namespace cohort::comm::interposer

using namespace cohort::comm;              // NOLINT: below are functions of MPI
using namespace cohort::comm::interposer;  // NOLINT
using InterposedGroup = cohort::comm::interposer::Group;

extern "C" {

int MPI_Bcast(void* buffer, int count, MPI_Datatype type, int root, MPI_Comm comm) {
  return Intercept(
      Call::kBroadcast, comm, [&] { return PMPI_Bcast(buffer, count, type, root, comm); },
      [&](const InterposedGroup& group) {
        return ValidRoot(group, root) ? BytesOf(count, type) : std::nullopt;
      },
      [&](Communicator& communicator, Session& session) -> absl::Status {
        const bool sends = communicator.rank() == root;
        COHORT_ASSIGN_OR_RETURN(
            Packed data, sends ? Packed::Sent(buffer, count, type) : Packed::Received(buffer, count, type));
        COHORT_RETURN_IF_ERROR(
            session.Wait(communicator.Broadcast(data.data(), *BytesOf(count, type), kBytes, root)));
        return sends ? absl::OkStatus() : data.Unpack();
      });
}

int MPI_Allgather(const void* send, int send_count, MPI_Datatype send_type, void* recv, int recv_count,
                  MPI_Datatype recv_type, MPI_Comm comm) {
  return Intercept(
      Call::kAllGather, comm,
      [&] { return PMPI_Allgather(send, send_count, send_type, recv, recv_count, recv_type, comm); },
      [&](const InterposedGroup& group) { return Times(BytesOf(recv_count, recv_type), group.size()); },
      [&](Communicator& communicator, Session& session) {
        const std::vector<int> counts(communicator.size(), recv_count);
        return AllGather(communicator, session, send, send_count, send_type, recv, counts.data(), nullptr,
                         recv_type);
      });
}

int MPI_Allgatherv(const void* send, int send_count, MPI_Datatype send_type, void* recv,
                   const int recv_counts[], const int places[], MPI_Datatype recv_type, MPI_Comm comm) {
  return Intercept(
      Call::kAllGatherV, comm,
      [&] {
        return PMPI_Allgatherv(send, send_count, send_type, recv, recv_counts, places, recv_type, comm);
      },
      [&](const InterposedGroup& group) -> std::optional<uint64_t> {
        if (recv_counts == nullptr || places == nullptr) return std::nullopt;
        uint64_t total = 0;
        for (int rank = 0; rank < group.size(); ++rank) {
          const auto bytes = BytesOf(recv_counts[rank], recv_type);
          if (!bytes.has_value()) return std::nullopt;
          total += *bytes;
        }
        return total;
      },
      [&](Communicator& communicator, Session& session) {
        return AllGather(communicator, session, send, send_count, send_type, recv, recv_counts, places,
                         recv_type);
      });
}

int MPI_Gather(const void* send, int send_count, MPI_Datatype send_type, void* recv, int recv_count,
               MPI_Datatype recv_type, int root, MPI_Comm comm) {
  return Intercept(
      Call::kGather, comm,
      [&] { return PMPI_Gather(send, send_count, send_type, recv, recv_count, recv_type, root, comm); },
      [&](const InterposedGroup& group) -> std::optional<uint64_t> {
        if (!ValidRoot(group, root)) return std::nullopt;
        // At the root, all of this is significant; elsewhere what is sent, which must be as much.
        return group.rank == root ? BytesOf(recv_count, recv_type) : BytesOf(send_count, send_type);
      },
      [&](Communicator& communicator, Session& session) -> absl::Status {
        const int size = communicator.size();
        if (communicator.rank() != root) {
          COHORT_ASSIGN_OR_RETURN(Packed in, Packed::Sent(send, send_count, send_type));
          const std::vector<size_t> bytes(size, *BytesOf(send_count, send_type));
          return session.Wait(communicator.Gather(in.data(), nullptr, bytes, kBytes, root));
        }
        const size_t block = *BytesOf(recv_count, recv_type);
        const std::vector<int> counts(size, recv_count);
        // In place, what lies there already is packed along.
        COHORT_ASSIGN_OR_RETURN(Packed out,
                                send == MPI_IN_PLACE
                                    ? Packed::SentBlocks(recv, counts.data(), nullptr, size, recv_type)
                                    : Packed::ReceivedBlocks(recv, counts.data(), nullptr, size, recv_type));
        const std::vector<size_t> bytes(size, block);
        std::byte* own = out.data() + root * block;
        if (send == MPI_IN_PLACE) {
          COHORT_RETURN_IF_ERROR(session.Wait(communicator.Gather(own, out.data(), bytes, kBytes, root)));
        } else {
          COHORT_ASSIGN_OR_RETURN(Packed in, Packed::Sent(send, send_count, send_type));
          COHORT_RETURN_IF_ERROR(
              session.Wait(communicator.Gather(in.data(), out.data(), bytes, kBytes, root)));
        }
        return out.Unpack();
      });
}

int MPI_Scatter(const void* send, int send_count, MPI_Datatype send_type, void* recv, int recv_count,
                MPI_Datatype recv_type, int root, MPI_Comm comm) {
  return Intercept(
      Call::kScatter, comm,
      [&] { return PMPI_Scatter(send, send_count, send_type, recv, recv_count, recv_type, root, comm); },
      [&](const InterposedGroup& group) -> std::optional<uint64_t> {
        if (!ValidRoot(group, root)) return std::nullopt;
        return group.rank == root ? BytesOf(send_count, send_type) : BytesOf(recv_count, recv_type);
      },
      [&](Communicator& communicator, Session& session) -> absl::Status {
        const int size = communicator.size();
        if (communicator.rank() != root) {
          COHORT_ASSIGN_OR_RETURN(Packed out, Packed::Received(recv, recv_count, recv_type));
          const std::vector<size_t> bytes(size, *BytesOf(recv_count, recv_type));
          COHORT_RETURN_IF_ERROR(
              session.Wait(communicator.Scatter(nullptr, out.data(), bytes, kBytes, root)));
          return out.Unpack();
        }
        const size_t block = *BytesOf(send_count, send_type);
        const std::vector<size_t> bytes(size, block);
        const std::vector<int> counts(size, send_count);
        COHORT_ASSIGN_OR_RETURN(Packed in, Packed::SentBlocks(send, counts.data(), nullptr, size, send_type));
        if (recv == MPI_IN_PLACE) {
          return session.Wait(communicator.Scatter(in.data(), in.data() + root * block, bytes, kBytes, root));
        }
        COHORT_ASSIGN_OR_RETURN(Packed out, Packed::Received(recv, recv_count, recv_type));
        COHORT_RETURN_IF_ERROR(
            session.Wait(communicator.Scatter(in.data(), out.data(), bytes, kBytes, root)));
        return out.Unpack();
      });
}

}  // extern "C"
