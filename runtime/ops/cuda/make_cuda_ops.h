// The operations of a CUDA device, for the device that owns them.
#pragma once

#include <memory>

namespace cohort::runtime {

class CudaDevice;
class Ops;

// `device` outlives them.
std::unique_ptr<Ops> MakeCudaOps(CudaDevice& device);

}  // namespace cohort::runtime
