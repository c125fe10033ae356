// What attention.cc, attention_part.cc and paged_attention.cc share: the choice of kernels, and running
// independent units of work on CpuThreads() threads with scratch memory each.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "absl/types/span.h"
#include "comm/check.h"
#include "runtime/device/cpu_features.h"
#include "runtime/ops/cpu/attention_kernels.h"
#include "runtime/tensor.h"

namespace cohort::runtime::attention {

// The kernels for f32 or bf16 tensors on ActiveCpuIsa().
const Kernels& KernelsFor(DataType dtype);

// Query tokens of one sequence and key/value head that one unit takes.
inline int64_t UnitTokens(int64_t heads) { return std::max<int64_t>(1, kUnitRows / heads); }

// Calls body(unit, scratch) for each of [0, units), in any order, each on one thread between the kernels'
// begin and end. Scratch is 64-byte aligned, of scratch_bytes, and belongs to the thread.
template <typename Body>
void RunUnits(Device& device, const Kernels& kernels, int64_t units, size_t scratch_bytes, const Body& body) {
  if (units == 0) return;
  const int threads = static_cast<int>(std::min<int64_t>(units, CpuThreads()));
  const size_t share = (scratch_bytes + 4095) / 4096 * 4096;
  const std::shared_ptr<void> scratch = device.Allocate(share * threads);
#pragma omp parallel num_threads(threads)
  {
    kernels.begin();
    void* mine = static_cast<char*>(scratch.get()) + share * omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
    for (int64_t unit = 0; unit < units; ++unit) body(unit, mine);
    kernels.end();
  }
}

inline const char* At(const Tensor& tensor, int64_t element) {
  return static_cast<const char*>(tensor.raw()) + element * static_cast<int64_t>(SizeOf(tensor.dtype()));
}
inline char* MutableAt(const Tensor& tensor, int64_t element) {
  return const_cast<char*>(At(tensor, element));
}

// One sequence of a packed batch: its queries are tokens [query, query + queries) of q, its keys [key, key +
// keys) of k. Query i sees the first i + 1 of them, or the first seen[i] (see ForwardTask).
struct Span {
  int64_t query = 0, queries = 0;
  int64_t key = 0, keys = 0;
  const int32_t* seen = nullptr;
};

// y, lse of the queries of `spans` (the others' are left alone). q [T, H, C], k, v [U, G, C]; y of q's type or
// f32. Arguments are checked already.
void ForwardSpans(const Tensor& q, const Tensor& k, const Tensor& v, absl::Span<const Span> spans,
                  double scale, const Tensor& y, const Tensor& lse);
// What the gradients need of y: itself, or sum over C of dy y, state [H, T].
struct Outputs {
  const Tensor* y = nullptr;
  const Tensor* delta = nullptr;
};
// Gradients, written in q's type, or with `add` added into f32.
void BackwardSpans(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v, Outputs outputs,
                   const Tensor& lse, absl::Span<const Span> spans, double scale, bool add, const Tensor& dq,
                   const Tensor& dk, const Tensor& dv);

// Query heads of a key/value head; aborts where the shapes do not fit together.
inline int64_t HeadsOfGroup(const Tensor& q, const Tensor& k, int64_t groups, int64_t width, double scale) {
  COHORT_CHECK(q.rank() == 3 && q.dim(2) == width && groups > 0 && q.dim(1) % groups == 0,
               "attention of queries %s over keys %s", q.DebugString().c_str(), k.DebugString().c_str());
  COHORT_CHECK(scale > 0, "attention with a scale of %g: it must be positive", scale);
  return q.dim(1) / groups;
}

}  // namespace cohort::runtime::attention
