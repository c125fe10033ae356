// The two halves of `cohort bench datatype`.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/data_type.h"

namespace cohort::tools {

struct DatatypeFlags {
  std::vector<int> sides = {32, 64, 128, 256, 512};
  std::vector<int> widths = {1, 2, 3};
  std::vector<std::string> elements = {"u8", "f32", "f64"};
  int turns = 5;
  double seconds = 0.0005;  // a turn
  std::string json;
};

absl::StatusOr<std::vector<DataType>> ElementsOf(const DatatypeFlags& flags);

// One process: packing and unpacking beside MPI_Pack and MPI_Unpack.
absl::Status BenchPacking(const DatatypeFlags& flags);
// Two ranks: messages, packed and in place, what was predicted of both and chosen, beside MPI_Send and MPI_Recv.
absl::Status BenchDatatypeMessages(const DatatypeFlags& flags);

}  // namespace cohort::tools
