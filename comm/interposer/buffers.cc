#include "comm/interposer/buffers.h"

#include <algorithm>
#include <climits>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::comm::interposer {
namespace {

// Sums and products of unsigned numbers have the bits of signed ones; their minima and maxima have not.
struct TypeRow {
  MPI_Datatype type;
  DataType dtype;
  bool ordered;
};

template <typename T>
constexpr DataType Integer() {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  return sizeof(T) == 4 ? DataType::kI32 : DataType::kI64;
}

// Types of 8 bits are left to MPI: where their sums overflow, Open MPI 4.1 saturates in its vector code.
// Tables are filled at first use: what MPI calls constants are addresses in its library.
const std::vector<TypeRow>& Types() {
  static const auto* rows = new std::vector<TypeRow>{
      {MPI_FLOAT, DataType::kF32, true},
      {MPI_DOUBLE, DataType::kF64, true},
      {MPI_INT, Integer<int>(), true},
      {MPI_LONG, Integer<long>(), true},
      {MPI_LONG_LONG_INT, Integer<long long>(), true},
      {MPI_INT32_T, DataType::kI32, true},
      {MPI_INT64_T, DataType::kI64, true},
      {MPI_UNSIGNED, Integer<unsigned>(), false},
      {MPI_UNSIGNED_LONG, Integer<unsigned long>(), false},
      {MPI_UNSIGNED_LONG_LONG, Integer<unsigned long long>(), false},
      {MPI_UINT32_T, DataType::kI32, false},
      {MPI_UINT64_T, DataType::kI64, false},
  };
  return *rows;
}

struct OpRow {
  MPI_Op mpi;
  ReduceOp op;
  bool by_order;
};

const std::vector<OpRow>& Ops() {
  static const auto* rows = new std::vector<OpRow>{
      {MPI_SUM, ReduceOp::kSum, false},
      {MPI_MIN, ReduceOp::kMin, true},
      {MPI_MAX, ReduceOp::kMax, true},
      {MPI_PROD, ReduceOp::kProduct, false},
  };
  return *rows;
}

// Whether elements follow each other without gaps, in the order in which MPI sends them.
bool Plain(MPI_Datatype type) {
  int integers, addresses, types, combiner = MPI_COMBINER_STRUCT, size = 0;
  MPI_Aint lower = 0, extent = 0;
  if (PMPI_Type_get_envelope(type, &integers, &addresses, &types, &combiner) != MPI_SUCCESS) return false;
  if (combiner != MPI_COMBINER_NAMED) return false;
  PMPI_Type_size(type, &size);
  PMPI_Type_get_extent(type, &lower, &extent);
  return lower == 0 && extent == size;
}

}  // namespace

std::optional<Reduction> FindReduction(MPI_Datatype type, MPI_Op op) {
  for (const OpRow& found : Ops()) {
    if (found.mpi != op) continue;
    for (const TypeRow& row : Types()) {
      if (row.type != type) continue;
      if (found.by_order && !row.ordered) return std::nullopt;
      return Reduction{row.dtype, found.op};
    }
  }
  return std::nullopt;
}

std::optional<uint64_t> BytesOf(int count, MPI_Datatype type) {
  int size = 0;
  if (count < 0 || type == MPI_DATATYPE_NULL || PMPI_Type_size(type, &size) != MPI_SUCCESS || size < 0) {
    return std::nullopt;
  }
  return static_cast<uint64_t>(count) * static_cast<uint64_t>(size);
}

Packed::Packed(std::vector<Block> blocks, MPI_Datatype type, size_t bytes)
    : blocks_(std::move(blocks)), type_(type), copied_(!Plain(type)) {
  int size = 0;
  PMPI_Type_size(type, &size);
  const std::byte* expected = nullptr;
  for (const Block& block : blocks_) {
    if (block.count == 0) continue;
    if (in_place_ == nullptr) {
      in_place_ = block.begin;
    } else if (block.begin != expected) {
      copied_ = true;
    }
    expected = block.begin + static_cast<size_t>(block.count) * static_cast<size_t>(size);
  }
  if (copied_) copy_.resize(bytes);
}

absl::StatusOr<Packed> Packed::Make(const void* buffer, const int* counts, const int* displacements,
                                    int blocks, MPI_Datatype type) {
  MPI_Aint lower = 0, extent = 0;
  PMPI_Type_get_extent(type, &lower, &extent);
  auto* begin = static_cast<std::byte*>(const_cast<void*>(buffer));
  std::vector<Block> list(blocks);
  size_t bytes = 0;
  MPI_Aint elements = 0;
  for (int i = 0; i < blocks; ++i) {
    const std::optional<uint64_t> own = BytesOf(counts[i], type);
    if (!own.has_value())
      return absl::InvalidArgumentError(absl::StrCat("a count of ", counts[i], " elements"));
    list[i] = {begin + (displacements == nullptr ? elements : displacements[i]) * extent, counts[i]};
    elements += counts[i];
    bytes += *own;
  }
  return Packed(std::move(list), type, bytes);
}

absl::StatusOr<Packed> Packed::Sent(const void* buffer, int count, MPI_Datatype type) {
  return SentBlocks(buffer, &count, nullptr, 1, type);
}

absl::StatusOr<Packed> Packed::Received(void* buffer, int count, MPI_Datatype type) {
  return ReceivedBlocks(buffer, &count, nullptr, 1, type);
}

absl::StatusOr<Packed> Packed::SentBlocks(const void* buffer, const int* counts, const int* displacements,
                                          int blocks, MPI_Datatype type) {
  COHORT_ASSIGN_OR_RETURN(Packed packed, Make(buffer, counts, displacements, blocks, type));
  COHORT_RETURN_IF_ERROR(packed.Move(/*pack=*/true));
  return packed;
}

absl::StatusOr<Packed> Packed::ReceivedBlocks(void* buffer, const int* counts, const int* displacements,
                                              int blocks, MPI_Datatype type) {
  return Make(buffer, counts, displacements, blocks, type);
}

absl::Status Packed::Unpack() { return Move(/*pack=*/false); }

absl::Status Packed::Move(bool pack) {
  if (!copied_) return absl::OkStatus();
  int size = 0;
  MPI_Aint lower = 0, extent = 0;
  PMPI_Type_size(type_, &size);
  PMPI_Type_get_extent(type_, &lower, &extent);
  if (size == 0) return absl::OkStatus();
  const bool plain = Plain(type_);
  size_t at = 0;
  for (const Block& block : blocks_) {
    // MPI counts packed bytes as int.
    const int batch = std::max(1, INT_MAX / size);
    for (int done = 0; done < block.count; done += batch) {
      const int count = std::min(batch, block.count - done);
      const size_t bytes = static_cast<size_t>(count) * static_cast<size_t>(size);
      std::byte* elements = block.begin + done * extent;
      std::byte* packed = copy_.data() + at;
      int position = 0, code = MPI_SUCCESS;
      if (plain) {
        std::memcpy(pack ? packed : elements, pack ? elements : packed, bytes);
        position = static_cast<int>(bytes);
      } else if (pack) {
        code = PMPI_Pack(elements, count, type_, packed, static_cast<int>(bytes), &position, MPI_COMM_WORLD);
      } else {
        code =
            PMPI_Unpack(packed, static_cast<int>(bytes), &position, elements, count, type_, MPI_COMM_WORLD);
      }
      if (code != MPI_SUCCESS || position != static_cast<int>(bytes)) {
        return absl::InternalError(absl::StrCat("MPI packed ", position, " bytes of ", bytes));
      }
      at += bytes;
    }
  }
  return absl::OkStatus();
}

}  // namespace cohort::comm::interposer
