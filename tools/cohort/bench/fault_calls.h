// A collective of every kind, with operands that each member can compute for all: so its result can be checked.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "comm/communicator.h"

namespace cohort::tools {

struct FaultCall {
  int kind = 0;      // row of the table of kinds
  size_t count = 0;  // about so many elements for each rank
  uint32_t seed = 0;
};

int NumFaultCalls();
const char* FaultCallName(int kind);

// Equal on all ranks. DATA_LOSS where the operation said OK and its result is wrong, else what it said.
absl::Status CallAndCheck(comm::Communicator& group, const FaultCall& call);

}  // namespace cohort::tools
