// A device whose operations are those of runtime/ops/cuda, compiled for the CPU (emulator.h), in host memory.
#pragma once

#include "runtime/device/device.h"

namespace cohort::runtime {

// The first thread first and copies at once; the last thread first and copies as late as a wait allows. Both have blocks
// of their own size of memory, with guards that are looked at when one is freed.
Device& EmulatedCudaDevice();
Device& LateEmulatedCudaDevice();

}  // namespace cohort::runtime
