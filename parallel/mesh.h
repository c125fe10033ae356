// The mesh: which ranks share what. A pure value; no communication.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace cohort::parallel {

// X(enumerator, name, what the ranks of one group along it have in common).
#define COHORT_AXES(X)                                                                                    \
  X(kPipeline, "pipeline", "different blocks of the same sequences; activations go from one to the next") \
  X(kReplicate, "replicate", "different sequences, and the same pieces of every parameter")               \
  X(kShard, "shard", "different sequences; the neighbours over which sharded parameters are split first") \
  X(kContext, "context", "different tokens of the same sequences; keys and values move")                  \
  X(kTensor, "tensor", "parts of the same matrices; tokens move at every one")                            \
  X(kExpertData, "expert-data", "equal copies of the same experts")                                       \
  X(kExpert, "expert", "different experts of the same blocks; they exchange tokens")

enum class Axis : uint8_t {
#define COHORT_X(enumerator, name, meaning) enumerator,
  COHORT_AXES(COHORT_X)
#undef COHORT_X
};
const char* Name(Axis axis);

// Ranks along each axis that is chosen. What is left of the world is the replicate axis, and the expert-data axis.
struct MeshShape {
  int pipeline = 1;
  int shard = 1;
  int context = 1;
  int tensor = 1;
  int expert = 1;  // divides the ranks of a pipeline stage

  bool operator==(const MeshShape&) const = default;
  // "pipeline 2 x shard 2 x tensor 2", without axes of one; "data alone" where there is no other.
  std::string DebugString() const;
};

// Sets of axes that mean something together.
// Ranks with different sequences.
inline constexpr Axis kBatchAxes[] = {Axis::kReplicate, Axis::kShard};
// Ranks with parts of the same sequences.
inline constexpr Axis kSequenceAxes[] = {Axis::kContext, Axis::kTensor};
// The ranks of one pipeline stage: all hold the same norms and routers.
inline constexpr Axis kStageAxes[] = {Axis::kReplicate, Axis::kShard, Axis::kContext, Axis::kTensor};
// The ranks of one stage that hold the same part of its matrices.
inline constexpr Axis kTensorReplicaAxes[] = {Axis::kReplicate, Axis::kShard, Axis::kContext};
// The ranks of one stage that hold the same experts.
inline constexpr Axis kExpertReplicaAxes[] = {Axis::kExpertData};

// The arrangement of all ranks, seen in two ways. Each view is a grid of axes over the same ranks, the last
// axis varying fastest:
//
//   dense view    pipeline x replicate x shard x context x tensor     everything but experts
//   sparse view   pipeline x expert-data x expert                     experts
//
// The expert axis borrows its ranks from the others of its stage (expert-data x expert = replicate x shard x context x
// tensor): every rank has tokens of its own between the matrices, those of a tensor group too, because their norms are
// split by tokens. So it computes its own tokens and sends them to its expert group for the experts alone.
//
// A group along an axis is the ranks that differ in that coordinate only; along several axes, those that differ in them
// only. The axes that talk most come last, so that their groups are neighbours, and neighbours are on one host
// where they fit: each host forms as many whole groups of its own ranks as it can, of the widest axis first, and
// only what is left over forms groups across hosts.
//
// Example: world 4, expert 2, two hosts {0, 2} and {1, 3}:
//   expert groups {0, 2} and {1, 3}; expert-data groups {0, 1} and {2, 3}; one replicate group {0, 2, 1, 3}.
class Mesh {
 public:
  Mesh() = default;  // of no ranks

  // host_of[r]: the host of rank r (any numbering). INVALID_ARGUMENT where the shape
  // does not divide the ranks.
  static absl::StatusOr<Mesh> Create(MeshShape shape, absl::Span<const int> host_of);

  const MeshShape& shape() const { return shape_; }
  int world() const { return static_cast<int>(position_.size()); }
  // Ranks of a stage.
  int stage_size() const { return world() / shape_.pipeline; }
  // Ranks in a group along the axis, or along these axes of one view together.
  int Size(Axis axis) const;
  int Size(absl::Span<const Axis> axes) const;
  // The place of a rank in its group. Along several axes the first varies slowest.
  int Coordinate(Axis axis, int rank) const;
  int Coordinate(absl::Span<const Axis> axes, int rank) const;
  // The ranks of that group, by coordinate.
  std::vector<int> Group(Axis axis, int rank) const;
  std::vector<int> Group(absl::Span<const Axis> axes, int rank) const;
  // So many neighbours of every group along the axes are on one host: the largest number that divides their groups into
  // such runs; 1 where it is not so everywhere.
  int NeighboursOnAHost(absl::Span<const Axis> axes) const;
  // Every group along the axis.
  std::vector<std::vector<int>> Groups(Axis axis) const;

  // The whole arrangement in words, an axis a line.
  std::string DebugString() const;

 private:
  struct GridAxis {
    Axis axis;
    int size;
    int stride;  // between positions whose coordinate differs by one
  };
  const GridAxis& Find(Axis axis) const;

  MeshShape shape_;
  std::vector<GridAxis> axes_;  // of both views
  std::vector<int> rank_at_;    // by position in the grids
  std::vector<int> position_;   // by rank
  std::vector<int> host_of_;    // by rank
};

}  // namespace cohort::parallel
