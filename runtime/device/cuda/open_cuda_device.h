// The CUDA devices of this process, for whoever chooses one: no header of CUDA is needed. In a build without CUDA there
// are none, and opening one says so.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "runtime/device/device.h"

namespace cohort::runtime {

// How many there are that this process may use (CUDA_VISIBLE_DEVICES). 0 where CUDA or its driver is missing.
int CudaDeviceCount();

// What the device of this number is of the machine, the same for every process that sees it; nothing is opened for it. Of a
// number that there is.
std::string CudaHardware(int ordinal);

// The device of this number, opened by the first call and the same for all later ones: it lives as long as the process.
// Unavailable, with what to do, where there is none. Thread-safe.
absl::StatusOr<Device*> OpenCudaDevice(int ordinal);

}  // namespace cohort::runtime
