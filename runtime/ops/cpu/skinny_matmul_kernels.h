// The interface of the skinny product's kernels, one table per instruction set and element type; see
// skinny_matmul_rows.h and skinny_matmul_amx.cc.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cohort::runtime::skinny {

// Rows of x that one pass over a row of weights serves.
inline constexpr int64_t kDotRows = 4;
// Weights are handed out in blocks of this many rows.
inline constexpr int64_t kBlock = 32;

struct Task {
  const void* x = nullptr;  // [m, k]
  const void* w = nullptr;  // [n, k]
  void* y = nullptr;        // [m, n]
  void* packed = nullptr;   // PackedBytes, 64-byte aligned: x as the kernel likes it
  int64_t m = 0, n = 0, k = 0;
  bool float_output = false;  // y is f32 whatever x is
};
constexpr size_t PackedBytes(int64_t m, int64_t k) {
  return static_cast<size_t>((m + 15) / 16 * 16 * ((k + 31) / 32 * 32)) * sizeof(float);
}

struct Kernels {
  // Around a thread's calls of rows (AMX configures its tiles).
  void (*begin)();
  void (*end)();
  void (*pack)(const Task& task);
  // Columns [n_begin, n_end) of y. n_begin is a multiple of kBlock.
  void (*rows)(const Task& task, int64_t n_begin, int64_t n_end);
};

extern const Kernels kPortableF32, kPortableBF16;
#if defined(__x86_64__)
extern const Kernels kAvx512F32, kAvx512BF16, kAmxBF16;
#endif

}  // namespace cohort::runtime::skinny
