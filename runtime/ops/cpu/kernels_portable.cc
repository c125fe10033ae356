// The vector kernels for any machine.
#include "runtime/ops/cpu/kernel_includes.h"
#include "runtime/ops/cpu/kernels.h"

#define COHORT_ISA portable
#include "runtime/ops/cpu/kernel_table.h"
