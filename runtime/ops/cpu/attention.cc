// Attention and its gradients on packed sequences: cut into units of (sequence, key/value head, chunk of
// queries). Units do not depend on the number of threads, and so neither do the results.
#include <vector>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cpu/attention_units.h"
#include "runtime/ops/cpu/cpu_ops.h"

namespace cohort::runtime {
namespace attention {

const Kernels& KernelsFor(DataType dtype) {
  COHORT_CHECK(dtype == DataType::kF32 || dtype == DataType::kBF16, "attention on %s", Name(dtype));
  const bool bf16 = dtype == DataType::kBF16;
#if defined(__x86_64__)
  const CpuIsa isa = ActiveCpuIsa();
  if (isa == CpuIsa::kAmx && bf16) return kAmxBF16;
  if (isa >= CpuIsa::kAvx512) return bf16 ? kAvx512BF16 : kAvx512F32;
#endif
  return bf16 ? kPortableBF16 : kPortableF32;
}

}  // namespace attention

using attention::At;
using attention::MutableAt;

void CpuOps::Attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& offsets, double scale,
                       const Tensor& y, const Tensor& lse) {
  const int64_t tokens = q.dim(0), query_heads = q.dim(1), groups = k.dim(1), width = q.dim(2);
  const int64_t heads = attention::HeadsOfGroup(q, k, groups, k.dim(2), scale);
  CheckShape("Attention", k, {tokens, groups, width});
  CheckSameShape("Attention", k, v);
  CheckSameShape("Attention", q, y);
  CheckShape("Attention", lse, {query_heads, tokens});
  for (const Tensor* other : {&k, &v, &y}) CheckSameType("Attention", q, *other);
  const int32_t* starts = CheckOffsets("Attention", offsets, offsets.dim(0) - 1, tokens);

  struct Unit {
    int64_t start, first, count, group;
  };
  std::vector<Unit> units;
  const int64_t chunk = attention::UnitTokens(heads);
  int64_t most = 0;
  for (int64_t s = 0; s + 1 < offsets.dim(0); ++s) {
    const int64_t length = starts[s + 1] - starts[s];
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t first = 0; first < length; first += chunk) {
        units.push_back({starts[s], first, std::min(chunk, length - first), g});
        most = std::max(most, units.back().count * heads);
      }
    }
  }
  const attention::Kernels& kernels = attention::KernelsFor(q.dtype());
  const size_t state_bytes = attention::StateFloats(most, width) * sizeof(float);
  const size_t scratch_bytes = state_bytes + attention::ForwardScratchBytes(most, width);
  attention::RunUnits(q.device(), kernels, units.size(), scratch_bytes, [&](int64_t i, void* scratch) {
    const Unit& unit = units[i];
    const int64_t row = ((unit.start + unit.first) * query_heads + unit.group * heads) * width;
    const int64_t key = (unit.start * groups + unit.group) * width;
    attention::ForwardTask task;
    task.kv.keys = At(k, key);
    task.kv.values = At(v, key);
    task.kv.stride = groups * width;
    task.q = At(q, row);
    task.y = MutableAt(y, row);
    task.token_stride = query_heads * width;
    task.tokens = unit.count;
    task.heads = heads;
    task.width = width;
    task.first_seen = unit.first + 1;
    task.key_end = unit.first + unit.count;
    task.scale = static_cast<float>(scale);
    task.lse = lse.data<float>() + unit.group * heads * tokens + unit.start + unit.first;
    task.lse_stride = tokens;
    float* state = static_cast<float*>(scratch);
    kernels.forward(task, state, static_cast<char*>(scratch) + state_bytes);
    kernels.finish(task, &state, 1);
  });
}

void CpuOps::AttentionGrad(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v,
                           const Tensor& y, const Tensor& lse, const Tensor& offsets, double scale,
                           const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  const int64_t tokens = q.dim(0), query_heads = q.dim(1), groups = k.dim(1), width = q.dim(2);
  const int64_t heads = attention::HeadsOfGroup(q, k, groups, k.dim(2), scale);
  CheckShape("AttentionGrad", k, {tokens, groups, width});
  CheckShape("AttentionGrad", lse, {query_heads, tokens});
  for (const Tensor* other : {&dy, &y, &dq}) CheckSameShape("AttentionGrad", q, *other);
  for (const Tensor* other : {&v, &dk, &dv}) CheckSameShape("AttentionGrad", k, *other);
  for (const Tensor* other : {&dy, &k, &v, &y, &dq, &dk, &dv}) CheckSameType("AttentionGrad", q, *other);
  const int32_t* starts = CheckOffsets("AttentionGrad", offsets, offsets.dim(0) - 1, tokens);

  struct Unit {
    int64_t start, length, group;
  };
  std::vector<Unit> units;
  int64_t longest = 0;
  for (int64_t s = 0; s + 1 < offsets.dim(0); ++s) {
    const int64_t length = starts[s + 1] - starts[s];
    longest = std::max(longest, length);
    for (int64_t g = 0; length > 0 && g < groups; ++g) units.push_back({starts[s], length, g});
  }
  const attention::Kernels& kernels = attention::KernelsFor(q.dtype());
  const size_t scratch_bytes = attention::BackwardScratchBytes(longest, heads, width);
  attention::RunUnits(q.device(), kernels, units.size(), scratch_bytes, [&](int64_t i, void* scratch) {
    const Unit& unit = units[i];
    const int64_t row = (unit.start * query_heads + unit.group * heads) * width;
    const int64_t key = (unit.start * groups + unit.group) * width;
    attention::BackwardTask task;
    task.dy = At(dy, row);
    task.q = At(q, row);
    task.y = At(y, row);
    task.k = At(k, key);
    task.v = At(v, key);
    task.dq = MutableAt(dq, row);
    task.dk = MutableAt(dk, key);
    task.dv = MutableAt(dv, key);
    task.token_stride = query_heads * width;
    task.kv_stride = groups * width;
    task.tokens = unit.length;
    task.heads = heads;
    task.width = width;
    task.scale = static_cast<float>(scale);
    task.lse = lse.data<float>() + unit.group * heads * tokens + unit.start;
    task.lse_stride = tokens;
    kernels.backward(task, scratch);
  });
}

}  // namespace cohort::runtime
