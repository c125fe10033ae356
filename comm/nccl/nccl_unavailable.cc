// What a build without NCCL has in place of nccl_real.cc.
#include "comm/nccl/nccl_api.h"

namespace cohort::comm::nccl {

absl::StatusOr<NcclApi*> OpenNccl() {
  return absl::UnimplementedError(
      "Cohort was built without NCCL: install it and the CUDA toolkit, and configure again with "
      "-DCOHORT_NCCL=ON");
}

}  // namespace cohort::comm::nccl
