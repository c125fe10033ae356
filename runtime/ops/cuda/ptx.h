// The instructions that C++ has no words for, each in one place. Section numbers are those of the PTX ISA 8.x/9.0
// manual. Compiled for the CPU, their documented meaning is that of tests/runtime/ops/cuda.
#pragma once

#include "runtime/ops/cuda/language.h"

namespace cohort::runtime::COHORT_CUDA {

#if !defined(COHORT_CUDA_EMULATED)

__device__ __forceinline__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// cp.async ("Data movement and conversion instructions: cp.async"): sixteen bytes from global to shared memory, past
// the first-level cache; those from `bytes` on become zero. Both addresses are 16-byte aligned.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)), "l"(global),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all but the latest kLeft groups of this thread have arrived. Others see them after a barrier.
template <int kLeft>
__device__ __forceinline__ void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// ldmatrix ("Warp-level matrix load instruction"): four 8x8 matrices of 16-bit elements. Lane l gives the address of row
// l % 8 of matrix l / 8, and gets in r[i] elements (l / 4, 2 (l % 4)) and the next of matrix i.
__device__ __forceinline__ void LoadMatrices(const void* row, uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}
// The same of the transposed matrices: r[i] has elements (2 (l % 4), l / 4) and the one below.
__device__ __forceinline__ void LoadMatricesTransposed(const void* row, uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}

// mma.m16n8k16 ("Matrix fragments for mma.m16n8k16 with floating point type"): c[16, 8] += a[16, 16] b[16, 8]. With g =
// lane / 4 and t = lane % 4: a[0], a[1] have rows g, g + 8 at columns 2t, 2t + 1, a[2], a[3] the same rows 8 columns
// on; b0, b1 column g at rows 2t, 2t + 1 and 8 rows on; c[0], c[1] row g, c[2], c[3] row g + 8 at columns 2t, 2t + 1.
__device__ __forceinline__ void Multiply16x8x16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two floats rounded to bf16 in one word, the first one below.
__device__ __forceinline__ uint32_t PackBf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// 2^x, with an error of 2 units in the last place; 0 for -inf.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Sixteen bytes that nobody writes while the kernel runs and that this block reads once: they need not stay in the
// first-level cache. Loads stay in the order in which they are written, before what is written after them: several of
// them in a row are under way together.
__device__ __forceinline__ uint4 LoadOnce(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

// The block's dynamic shared memory.
__device__ __forceinline__ char* SharedMemory() {
  extern __shared__ __align__(128) char shared_memory[];
  return shared_memory;
}

#else

using emulator::CommitCopies;
using emulator::CopyAsync16;
using emulator::Exp2;
using emulator::LoadMatrices;
using emulator::LoadMatricesTransposed;
using emulator::LoadOnce;
using emulator::Multiply16x8x16;
using emulator::PackBf16;
using emulator::SharedAddress;
using emulator::SharedMemory;
using emulator::WaitCopies;

#endif

}  // namespace cohort::runtime::COHORT_CUDA
