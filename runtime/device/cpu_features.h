// What this machine's CPU can do, and what we are allowed to use of it. The one place that asks.
#pragma once

#include <cstdint>

namespace cohort::runtime {

// Each level includes those before it. kAvx512 means AVX512 F, BW, VL, DQ with FMA; kAmx adds AVX512-BF16 and
// AMX tiles for bf16.
enum class CpuIsa : uint8_t { kPortable, kAvx512, kAmx };

// The highest level that the CPU and the operating system support, or the lower one that the environment
// variable COHORT_CPU_ISA (portable, avx512, amx) asks for. Read once. A value that is none of these is
// ignored with a message on stderr.
CpuIsa ActiveCpuIsa();
const char* Name(CpuIsa isa);

}  // namespace cohort::runtime
