// The mesh: which ranks share what. A pure value; no communication.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace cohort::parallel {

// X(enumerator, name, what the ranks of one group along it have in common).
#define COHORT_AXES(X)                                                                                       \
  X(kData, "data", "different sequences of the batch, and equal copies of every parameter but the experts'") \
  X(kExpertData, "expert-data", "equal copies of the same experts")                                          \
  X(kExpert, "expert", "different experts of the same blocks; they exchange tokens")

enum class Axis : uint8_t {
#define COHORT_X(enumerator, name, meaning) enumerator,
  COHORT_AXES(COHORT_X)
#undef COHORT_X
};
const char* Name(Axis axis);

struct MeshShape {
  int expert = 1;  // ranks among which each block's experts are divided
};

// The arrangement of all ranks, seen in two ways. Each view is a grid of axes over the same ranks, the last
// axis varying fastest:
//
//   dense view    data                      everything but experts: data = world
//   sparse view   expert-data x expert      experts: expert-data x expert = world
//
// The expert axis borrows its ranks from the data axis: every rank computes its own sequences, and sends
// tokens to its expert group for the experts alone. A group along an axis is the ranks that differ in that
// coordinate only. Expert groups exchange tokens twice in every sparse block and so are kept inside a host
// where they fit: each host forms as many whole expert groups of its own ranks as it can, and only what is
// left over forms groups across hosts.
//
// Example: world 4, expert 2, two hosts {0, 2} and {1, 3}:
//   expert groups {0, 2} and {1, 3}; expert-data groups {0, 1} and {2, 3}; one data group {0, 2, 1, 3}.
class Mesh {
 public:
  // host_of[r]: the host of rank r (any numbering). INVALID_ARGUMENT where the shape
  // does not divide the ranks.
  static absl::StatusOr<Mesh> Create(MeshShape shape, absl::Span<const int> host_of);

  int world() const { return static_cast<int>(position_.size()); }
  // Ranks in a group along the axis.
  int Size(Axis axis) const;
  // The place of a rank in its group along the axis.
  int Coordinate(Axis axis, int rank) const;
  // The ranks of that group, by coordinate.
  std::vector<int> Group(Axis axis, int rank) const;
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

  std::vector<GridAxis> axes_;  // of both views
  std::vector<int> rank_at_;    // by position in the grids
  std::vector<int> position_;   // by rank
  std::vector<int> host_of_;    // by rank
};

}  // namespace cohort::parallel
