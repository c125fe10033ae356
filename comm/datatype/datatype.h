// Derived datatypes: which bytes of a buffer belong to a message, and in which order, as nested strides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "comm/data_type.h"

namespace cohort::comm {

// `count` times what is inside it, `stride` bytes apart.
struct StrideLevel {
  size_t count = 1;
  ptrdiff_t stride = 0;
  friend bool operator==(const StrideLevel&, const StrideLevel&) = default;
};

// Runs of `run` dense bytes: for each turn of the levels, the outermost first, one run.
struct StridedBlock {
  ptrdiff_t offset = 0;  // of the first run, bytes
  size_t run = 0;
  std::vector<StrideLevel> levels;

  size_t num_runs() const;
  size_t bytes() const { return num_runs() * run; }
  friend bool operator==(const StridedBlock&, const StridedBlock&) = default;
};

struct DatatypeMember;

// An immutable layout in canonical form: levels of one turn are dropped, dense levels are part of the run,
// levels that continue each other are one, and blocks that continue each other are one (Pearson et al., "TEMPI: An
// interposed MPI library with a canonical representation of CUDA-aware datatypes", HPDC 2021). So layouts that
// were described in different ways and hold the same bytes in the same order are mostly equal, and packed by the same
// loop. The order of the bytes is that of the description, as MPI's; levels are not sorted by stride, which would
// change it. All builders give INVALID_ARGUMENT where a layout is negative, too deep, or larger than memory.
class Datatype {
 public:
  static Datatype Element(DataType dtype);
  // `count` of them, one extent apart.
  static absl::StatusOr<Datatype> Contiguous(size_t count, const Datatype& inner);
  // `count` blocks of `length` inner ones each, `stride` inner extents, or bytes, from block to block.
  static absl::StatusOr<Datatype> Vector(size_t count, size_t length, ptrdiff_t stride,
                                         const Datatype& inner);
  static absl::StatusOr<Datatype> HVector(size_t count, size_t length, ptrdiff_t stride_bytes,
                                          const Datatype& inner);
  // Blocks of `length` inner ones, at displacements counted in inner extents.
  static absl::StatusOr<Datatype> IndexedBlock(size_t length, absl::Span<const ptrdiff_t> displacements,
                                               const Datatype& inner);
  // Part of an array of `sizes` (the last dimension is dense): `subsizes` elements from `starts` on. Its extent is the
  // whole array.
  static absl::StatusOr<Datatype> Subarray(absl::Span<const size_t> sizes, absl::Span<const size_t> subsizes,
                                           absl::Span<const size_t> starts, const Datatype& inner);
  static absl::StatusOr<Datatype> Struct(absl::Span<const DatatypeMember> members);
  // The same bytes, as if it took `extent` bytes.
  absl::StatusOr<Datatype> Resized(size_t extent) const;

  absl::Span<const StridedBlock> blocks() const { return blocks_; }
  size_t bytes() const { return bytes_; }
  size_t num_runs() const { return num_runs_; }
  // Bytes from one of them to the next where they follow each other.
  ptrdiff_t extent() const { return extent_; }
  // The first byte touched, and the one behind the last, as offsets from the buffer.
  ptrdiff_t lower() const { return lower_; }
  ptrdiff_t upper() const { return upper_; }

  // Whether its bytes lie together, from lower() on.
  bool dense() const { return num_runs_ <= 1; }

  // From the layout to bytes() dense bytes, and back.
  void Pack(const void* buffer, void* packed) const { PackPart(buffer, 0, bytes_, packed); }
  void Unpack(const void* packed, void* buffer) const { UnpackPart(packed, 0, bytes_, buffer); }
  // The same for `bytes` of the dense ones from `first` on, which are at `packed`. They must lie within bytes().
  void PackPart(const void* buffer, size_t first, size_t bytes, void* packed) const;
  void UnpackPart(const void* packed, size_t first, size_t bytes, void* buffer) const;

  // As words, for another process: FromWords makes a layout of the same bytes of them, whose extent is 0.
  std::vector<uint64_t> Words() const;
  size_t num_words() const;
  static absl::StatusOr<Datatype> FromWords(absl::Span<const uint64_t> words);

 private:
  Datatype() = default;
  static absl::StatusOr<Datatype> Make(std::vector<StridedBlock> blocks, ptrdiff_t extent);
  template <typename Move>
  void ForPart(size_t first, size_t bytes, const Move& move) const;

  std::vector<StridedBlock> blocks_;
  std::vector<size_t> begins_;  // of the blocks, in the dense bytes
  size_t bytes_ = 0, num_runs_ = 0;
  ptrdiff_t extent_ = 0, lower_ = 0, upper_ = 0;
};

// `count` of a type, one extent apart, from `offset` bytes on.
struct DatatypeMember {
  size_t count;
  ptrdiff_t offset;
  Datatype type;
};

// Goes through the runs of a layout in order. The layout must outlive it.
class RunCursor {
 public:
  explicit RunCursor(const Datatype& layout);
  // Some bytes that lie together, at most so many, as the next ones: where they are, from the buffer, and how many. 0
  // bytes at the end.
  struct Piece {
    ptrdiff_t offset = 0;
    size_t bytes = 0;
  };
  Piece Next(size_t most);

 private:
  void Enter();

  absl::Span<const StridedBlock> blocks_;
  size_t block_ = 0;
  std::vector<size_t> turns_;
  ptrdiff_t at_ = 0;   // of the present run
  size_t within_ = 0;  // bytes of it that are done
};

}  // namespace cohort::comm
