// A device whose operations are those of runtime/ops/cuda, compiled for the CPU (emulator.h), in host memory.
#pragma once

#include "runtime/device/device.h"

namespace cohort::runtime {

// As an A100 and as an H200, as far as kernels are chosen by what a device has; with few multiprocessors, so that blocks
// take several turns. On the one the first thread goes first and copies happen at once, on the other the last thread
// and as late as a wait allows. Each tensor has a block of memory of its own, with guards that are looked at when it is
// freed.
Device& EmulatedA100();
Device& EmulatedH200();

}  // namespace cohort::runtime
