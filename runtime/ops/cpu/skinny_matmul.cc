#include "runtime/ops/cpu/skinny_matmul.h"

#include <omp.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "runtime/device/cpu_features.h"
#include "runtime/ops/cpu/policy.h"
#include "runtime/ops/cpu/skinny_matmul_kernels.h"

namespace cohort::runtime {
namespace {

const skinny::Kernels& KernelsFor(DataType dtype) {
  const bool bf16 = dtype == DataType::kBF16;
#if defined(__x86_64__)
  const CpuIsa isa = ActiveCpuIsa();
  if (isa == CpuIsa::kAmx && bf16) return skinny::kAmxBF16;
  if (isa >= CpuIsa::kAvx512) return bf16 ? skinny::kAvx512BF16 : skinny::kAvx512F32;
#endif
  return bf16 ? skinny::kPortableBF16 : skinny::kPortableF32;
}

bool Takes(const Tensor& x, const Tensor& w, const Tensor& y) {
  return (x.dtype() == DataType::kF32 || x.dtype() == DataType::kBF16) && w.dtype() == x.dtype() &&
         (y.dtype() == x.dtype() || y.dtype() == DataType::kF32);
}

// The tasks' weights one after the other, in equal shares of blocks a thread.
void Run(Device& device, DataType dtype, std::vector<skinny::Task> tasks) {
  const skinny::Kernels& kernels = KernelsFor(dtype);
  int64_t bytes = 0, blocks = 0;
  for (skinny::Task& task : tasks) {
    task.packed = reinterpret_cast<void*>(bytes);  // an offset, until there is memory
    bytes += (skinny::PackedBytes(task.m, task.k) + 63) / 64 * 64;
    blocks += (task.n + skinny::kBlock - 1) / skinny::kBlock;
  }
  const std::shared_ptr<void> memory = device.Allocate(bytes);
  for (skinny::Task& task : tasks) {
    task.packed = static_cast<char*>(memory.get()) + reinterpret_cast<intptr_t>(task.packed);
    kernels.pack(task);
  }
  int64_t weights = 0;
  for (const skinny::Task& task : tasks) weights += task.n * task.k;
  [[maybe_unused]] const int threads =  // clang-tidy does not see the pragma's use
      static_cast<int>(std::clamp<int64_t>(weights / cpu_policy::kElementGrain, 1, CpuThreads()));
#pragma omp parallel num_threads(threads)
  {
    const int64_t share = (blocks + omp_get_num_threads() - 1) / omp_get_num_threads();
    const int64_t begin = share * omp_get_thread_num(), end = std::min(blocks, begin + share);
    kernels.begin();
    int64_t first = 0;  // block of the task at hand
    for (const skinny::Task& task : tasks) {
      const int64_t count = (task.n + skinny::kBlock - 1) / skinny::kBlock;
      const int64_t from = std::max(begin, first) - first, to = std::min(end, first + count) - first;
      if (from < to) kernels.rows(task, from * skinny::kBlock, std::min(task.n, to * skinny::kBlock));
      first += count;
    }
    kernels.end();
  }
}

}  // namespace

bool SkinnyMatMul(const Tensor& x, const Tensor& w, const Tensor& y) {
  const int64_t m = x.dim(0), k = x.dim(1), n = w.dim(0);
  if (!Takes(x, w, y) || m == 0 || n == 0 || m > cpu_policy::kSkinnyRows) return false;
  Run(x.device(), x.dtype(), {{x.raw(), w.raw(), y.raw(), nullptr, m, n, k, y.dtype() == DataType::kF32}});
  return true;
}

bool SkinnyGroupedMatMul(const Tensor& x, const Tensor& offsets, const Tensor& w, const Tensor& y) {
  const int64_t groups = w.dim(0), n = w.dim(1), k = w.dim(2);
  if (!Takes(x, w, y) || n == 0) return false;
  const int32_t* starts = offsets.data<int32_t>();
  const auto at = [](const Tensor& t, int64_t i) {
    return static_cast<char*>(t.raw()) + i * static_cast<int64_t>(SizeOf(t.dtype()));
  };
  std::vector<skinny::Task> tasks;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t m = starts[g + 1] - starts[g];
    if (m == 0 || m > cpu_policy::kSkinnyRows) continue;
    tasks.push_back({at(x, starts[g] * k), at(w, g * n * k), at(y, starts[g] * n), nullptr, m, n, k,
                     y.dtype() == DataType::kF32});
  }
  if (!tasks.empty()) Run(x.device(), x.dtype(), std::move(tasks));
  return true;
}

}  // namespace cohort::runtime
