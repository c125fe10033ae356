// Faces of a 3-D array with a halo, described as MPI programs describe them: to Cohort and to MPI.
#pragma once

#ifdef COHORT_HAVE_MPI

#include <mpi.h>

#include <string>

#include "absl/status/statusor.h"
#include "comm/datatype/datatype.h"

namespace cohort::tools {

// The outermost `width` layers of a cube of side^3 elements on one side of one axis (0: the slowest, z; 2: the dense
// one, x), in an array with `width` ghost layers all round. `ghost`: the layers outside of it, where a
// neighbour's are received.
struct HaloFace {
  int side = 64;
  int width = 1;
  int axis = 2;
  bool high = false;
  bool ghost = false;
  DataType element = DataType::kF64;

  size_t array_bytes() const;
};

enum class Description { kSubarray, kNestedVectors, kIndexedBlock, kStruct };
inline constexpr Description kDescriptions[] = {Description::kSubarray, Description::kNestedVectors,
                                                Description::kIndexedBlock, Description::kStruct};
const char* Name(Description description);

absl::StatusOr<comm::Datatype> Describe(const HaloFace& face, Description description);
// Committed; the caller frees it.
MPI_Datatype DescribeToMpi(const HaloFace& face, Description description);

}  // namespace cohort::tools

#endif  // COHORT_HAVE_MPI
