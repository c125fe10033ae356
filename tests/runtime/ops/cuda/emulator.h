// CUDA's words on the CPU, so that the very kernels of runtime/ops/cuda run in tests of machines without a GPU. Blocks
// run one after another, the threads of a block as fibres that take turns: each runs until it has to wait for others, a warp until it has to wait for other warps.
//
// What it proves: indices, barriers, the order of asynchronous copies, and the fragment layouts of ldmatrix and
// mma.sync as the PTX manual gives them. What it cannot: speed, how instructions round (ex2.approx, the order of sums
// inside an mma), memory ordering between blocks, and whether the compiler for the device agrees.
//
// It aborts where a kernel breaks a rule: threads of a warp that meet in different collective operations or after
// others have left, a barrier that not all threads reach, a shared or global address that is not aligned.
// Included before everything else (-include).
#pragma once

#define COHORT_CUDA_EMULATED 1

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
using cudaStream_t = void*;

// Of the fibre that runs now.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

// How threads take turns and when asynchronous copies and products happen: a race shows in one of them.
struct Schedule {
  enum class When : uint8_t {
    kAtOnce,
    kLate,    // as late as a wait allows
    kEither,  // at once in every second block, late in the others
  };
  bool descending = false;  // the last thread first
  When copies = When::kAtOnce, products = When::kAtOnce;

  // Of the block that runs now.
  static bool AtOnce(When when) {
    return when == When::kAtOnce ||
           (when == When::kEither && (blockIdx.x + blockIdx.y + blockIdx.z) % 2 == 0);
  }
};
extern Schedule schedule;

// Runs `body` as every thread of every block.
void Run(dim3 grid, dim3 block, size_t shared, const std::function<void()>& body);
// Blocks run since the process began.
uint64_t BlocksRun();

// Waits for all live threads of the warp, or of the block; the last one to come calls run(data) with what all gave,
// by lane (null for threads that do not exist) or by thread.
void MeetWarp(const char* what, void* mine, void (*run)(void* const* data));
void MeetBlock(const char* what, void* mine, void (*run)(void* const* data, int threads));
[[noreturn]] void Fail(const char* what);

template <typename T>
struct Exchanged {
  T value;
  int from;
};
template <typename T>
T Exchange(const char* what, T value, int from) {
  Exchanged<T> mine{value, from};
  MeetWarp(what, &mine, [](void* const* data) {
    T values[32] = {};
    for (int lane = 0; lane < 32; ++lane) {
      if (data[lane] != nullptr) values[lane] = static_cast<Exchanged<T>*>(data[lane])->value;
    }
    for (int lane = 0; lane < 32; ++lane) {
      if (data[lane] == nullptr) continue;
      auto* to = static_cast<Exchanged<T>*>(data[lane]);
      if (to->from < 0 || to->from > 31 || data[to->from] == nullptr)
        Fail("a lane reads from a thread that is not there");
      to->value = values[to->from];
    }
  });
  return mine.value;
}
inline int Lane() { return static_cast<int>(threadIdx.x % 32); }
inline void FullMask(unsigned mask) {
  if (mask != 0xffffffffu) Fail("a mask of some lanes");
}

char* SharedMemory();
bool InShared(const void* p, size_t bytes);
void CopyAsync16(void* shared, const void* global, int bytes);
void CommitCopies();
void WaitForCopies(int left);
template <int kLeft>
void WaitCopies() {
  WaitForCopies(kLeft);
}
void LoadMatrices(const void* row, uint32_t (&r)[4]);
void LoadMatricesTransposed(const void* row, uint32_t (&r)[4]);
void Multiply16x8x16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
uint32_t PackBf16(float low, float high);
// Where the block's shared memory begins is not a multiple of much.
uint32_t SharedAddress(const void* p);
// Products of warpgroups: at once, or as late as a wait allows, as copies are. `tiles` times eight columns of c. Each warp
// makes its own sixteen rows.
struct WarpgroupProduct {
  float* c;
  const uint32_t* a;  // four registers, or null:
  uint64_t a_descriptor, b_descriptor;
  bool add;
  int tiles;
};
void IssueProduct(const WarpgroupProduct& product);
template <int kTiles>
void MultiplyAsync(float (&c)[kTiles][4], uint64_t a, uint64_t b, bool add) {
  IssueProduct({&c[0][0], nullptr, a, b, add, kTiles});
}
template <int kTiles>
void MultiplyAsync(float (&c)[kTiles][4], const uint32_t (&a)[4], uint64_t b) {
  IssueProduct({&c[0][0], a, 0, b, true, kTiles});
}
inline void BeginProducts() {}
inline void ShowToProducts() {}
template <typename T, int kTiles>
void Pin(T (&)[kTiles][4]) {}
void CheckNoProducts();  // when a thread ends
void CommitProducts();
void WaitForProducts(int left);
template <int kLeft>
void WaitProducts() {
  WaitForProducts(kLeft);
}

inline float Exp2(float x) { return std::exp2(x); }
inline uint4 LoadOnce(const void* p) {
  if (reinterpret_cast<uintptr_t>(p) % 16 != 0) Fail("a load of sixteen bytes that is not aligned");
  uint4 v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

inline void CopyBytes(const void* from, void* to, size_t bytes) { std::memcpy(to, from, bytes); }

}  // namespace emulator

inline void __syncthreads() { emulator::MeetBlock("__syncthreads", nullptr, nullptr); }
int __syncthreads_or(int predicate);
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  emulator::FullMask(mask);
  emulator::MeetWarp("__syncwarp", nullptr, nullptr);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int lane) {
  emulator::FullMask(mask);
  return emulator::Exchange("__shfl_sync", value, lane & 31);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  emulator::FullMask(mask);
  return emulator::Exchange("__shfl_xor_sync", value, emulator::Lane() ^ bits);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, int by) {
  emulator::FullMask(mask);
  const int lane = emulator::Lane();
  return emulator::Exchange("__shfl_up_sync", value, lane < by ? lane : lane - by);
}
unsigned __ballot_sync(unsigned mask, int predicate);
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
unsigned __match_any_sync(unsigned mask, int value);

inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(unsigned x) { return x == 0 ? 0 : std::countr_zero(x) + 1; }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int atomicAdd(int* p, int x) {
  const int before = *p;
  *p += x;
  return before;
}
[[noreturn]] inline void __trap() { emulator::Fail("__trap"); }
