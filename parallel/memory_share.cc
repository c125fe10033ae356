#include "parallel/memory_share.h"

#include "comm/check.h"

namespace cohort::parallel {

absl::StatusOr<int64_t> ShareOfFreeMemory(runtime::Device& device, comm::Communicator& world) {
  int64_t share = device.free_bytes() / world.topology().local_size();
  COHORT_RETURN_IF_ERROR(world.AllReduce(&share, &share, 1, DataType::kI64, comm::ReduceOp::kMin).Wait());
  return share;
}

}  // namespace cohort::parallel
