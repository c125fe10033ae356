// The library of NCCL itself, as far as a machine without a device goes.
#include <gtest/gtest.h>

#include "comm/nccl/nccl_api.h"

namespace cohort::comm::nccl {
namespace {

TEST(RealNccl, IsThereOrSaysThatItIsNot) {
  const absl::StatusOr<NcclApi*> api = OpenNccl();
  if (!api.ok()) {
    // Not built, or not found where this runs.
    EXPECT_TRUE(absl::IsUnimplemented(api.status()) || absl::IsUnavailable(api.status())) << api.status();
    return;
  }
  // With a device, OK; without, CUDA's words.
  const absl::Status device = (*api)->UseDevice(0);
  if (!device.ok()) {
    EXPECT_NE(std::string(device.message()).find("cudaSetDevice"), std::string::npos) << device;
  }
  EXPECT_FALSE((*api)->UseDevice(1 << 20).ok());
}

}  // namespace
}  // namespace cohort::comm::nccl
