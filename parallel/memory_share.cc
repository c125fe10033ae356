#include "parallel/memory_share.h"

#include "comm/check.h"
#include "runtime/collectives/same_hardware.h"

namespace cohort::parallel {

absl::StatusOr<int64_t> ShareOfFreeMemory(runtime::Device& device, comm::Communicator& world) {
  COHORT_ASSIGN_OR_RETURN(const int sharers, runtime::RanksOfSameHardware(device, world));
  int64_t share = device.free_bytes() / sharers;
  COHORT_RETURN_IF_ERROR(world.AllReduce(&share, &share, 1, DataType::kI64, comm::ReduceOp::kMin).Wait());
  return share;
}

}  // namespace cohort::parallel
