// MPI's buffers as Cohort takes them: bytes in one piece.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "comm/communicator.h"

namespace cohort::comm::interposer {

// A reduction that Cohort has. Predefined types and operations only; which ones, is equal on all ranks of a call.
struct Reduction {
  DataType dtype;
  ReduceOp op;
};
std::optional<Reduction> FindReduction(MPI_Datatype type, MPI_Op op);

// Bytes that `count` elements hold, gaps left out. MPI requires what is sent to match what is received, so this is
// equal on both sides even where their types are not. Nullopt where an argument is wrong: MPI is to say so.
std::optional<uint64_t> BytesOf(int count, MPI_Datatype type);

// `count` elements of a type from `buffer`: bytes without gaps, in place where they lie so, else in a copy.
class Packed {
 public:
  // Elements that are sent: a copy is filled at once.
  static absl::StatusOr<Packed> Sent(const void* buffer, int count, MPI_Datatype type);
  // Room for elements that are received; Unpack puts them where they belong.
  static absl::StatusOr<Packed> Received(void* buffer, int count, MPI_Datatype type);
  // The same for a block a rank, block r of counts[r] elements at displacements[r] extents (null: they follow each
  // other), as if they followed each other.
  static absl::StatusOr<Packed> SentBlocks(const void* buffer, const int* counts, const int* displacements,
                                           int blocks, MPI_Datatype type);
  static absl::StatusOr<Packed> ReceivedBlocks(void* buffer, const int* counts, const int* displacements,
                                               int blocks, MPI_Datatype type);

  std::byte* data() { return copied_ ? copy_.data() : in_place_; }
  // For received elements, when they have come.
  absl::Status Unpack();

 private:
  struct Block {
    std::byte* begin;
    int count;
  };
  Packed(std::vector<Block> blocks, MPI_Datatype type, size_t bytes);
  static absl::StatusOr<Packed> Make(const void* buffer, const int* counts, const int* displacements,
                                     int blocks, MPI_Datatype type);
  absl::Status Move(bool pack);

  std::vector<Block> blocks_;
  MPI_Datatype type_;
  bool copied_ = false;
  std::byte* in_place_ = nullptr;
  std::vector<std::byte> copy_;
};

}  // namespace cohort::comm::interposer
