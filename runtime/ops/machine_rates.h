// What this machine can do at best, measured: the denominators of every "share of peak".
#pragma once

#include "comm/data_type.h"
#include "runtime/device/device.h"

namespace cohort::runtime {

// FLOP/s of the vendor library's own matrix product (oneDNN, the layout it likes best) of `dtype` (kF32 or
// kBF16) with CpuThreads() threads: the median of some repetitions of a product of 2048 x 1024 by 1024 x
// 4096. Takes about a tenth of a second; `seconds` is how long to repeat.
double MeasureMatMulRate(DataType dtype, double seconds = 0.1);
// The same of any device: on one that is not the host's memory of its own products of 4096 x 4096 by 4096 x 4096, which
// are the vendor library's there.
double MeasureMatMulRate(Device& device, DataType dtype, double seconds = 0.1);

// Bytes/s, read and written together, of copying memory much larger than the caches with CpuThreads()
// threads. `bytes` is the size of the source; the median of some repetitions.
double MeasureCopyBandwidth(size_t bytes = size_t{512} << 20);
// The same within the memory of any device.
double MeasureCopyBandwidth(Device& device, size_t bytes = size_t{512} << 20);

}  // namespace cohort::runtime
