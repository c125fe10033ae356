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

void ForwardSpans(const Tensor& q, const Tensor& k, const Tensor& v, absl::Span<const Span> spans,
                  double scale, const Tensor& y, const Tensor& lse) {
  const int64_t tokens = q.dim(0), query_heads = q.dim(1), groups = k.dim(1), width = q.dim(2);
  const int64_t heads = query_heads / groups;
  struct Unit {
    const Span* span;
    int64_t first, count, group;
  };
  std::vector<Unit> units;
  const int64_t chunk = UnitTokens(heads);
  int64_t most = 0;
  for (const Span& span : spans) {
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t first = 0; first < span.queries; first += chunk) {
        units.push_back({&span, first, std::min(chunk, span.queries - first), g});
        most = std::max(most, units.back().count * heads);
      }
    }
  }
  const Kernels& kernels = KernelsFor(q.dtype());
  const auto finish = y.dtype() == DataType::kF32 ? kernels.finish_float : kernels.finish;
  const size_t state_bytes = StateFloats(most, width) * sizeof(float);
  const size_t scratch_bytes = state_bytes + ForwardScratchBytes(most, width);
  RunUnits(q.device(), kernels, units.size(), scratch_bytes, [&](int64_t i, void* scratch) {
    const Unit& unit = units[i];
    const int64_t token = unit.span->query + unit.first;
    const int64_t row = (token * query_heads + unit.group * heads) * width;
    const int64_t key = (unit.span->key * groups + unit.group) * width;
    ForwardTask task;
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
    if (unit.span->seen != nullptr) task.seen = unit.span->seen + unit.first;
    task.key_end = task.Seen(unit.count - 1);
    task.scale = static_cast<float>(scale);
    task.lse = lse.data<float>() + unit.group * heads * tokens + token;
    task.lse_stride = tokens;
    float* state = static_cast<float*>(scratch);
    kernels.forward(task, state, static_cast<char*>(scratch) + state_bytes);
    finish(task, &state, 1);
  });
}

void BackwardSpans(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v, Outputs outputs,
                   const Tensor& lse, absl::Span<const Span> spans, double scale, bool add, const Tensor& dq,
                   const Tensor& dk, const Tensor& dv) {
  const int64_t tokens = q.dim(0), query_heads = q.dim(1), groups = k.dim(1), width = q.dim(2);
  const int64_t heads = query_heads / groups;
  struct Unit {
    const Span* span;
    int64_t group;
  };
  std::vector<Unit> units;
  int64_t longest = 0;
  for (const Span& span : spans) {
    longest = std::max(longest, span.keys);
    for (int64_t g = 0; span.queries > 0 && g < groups; ++g) units.push_back({&span, g});
  }
  const Kernels& kernels = KernelsFor(q.dtype());
  const size_t scratch_bytes = BackwardScratchBytes(longest, heads, width);
  RunUnits(q.device(), kernels, units.size(), scratch_bytes, [&](int64_t i, void* scratch) {
    const Span& span = *units[i].span;
    const int64_t row = (span.query * query_heads + units[i].group * heads) * width;
    const int64_t key = (span.key * groups + units[i].group) * width;
    BackwardTask task;
    task.dy = At(dy, row);
    task.q = At(q, row);
    const int64_t statistics = units[i].group * heads * tokens + span.query;
    if (outputs.y != nullptr) {
      task.y = At(*outputs.y, row);
      task.y_is_float = outputs.y->dtype() == DataType::kF32;
    }
    if (outputs.delta != nullptr) task.delta = outputs.delta->data<float>() + statistics;
    task.k = At(k, key);
    task.v = At(v, key);
    task.dq = MutableAt(dq, row);
    task.dk = MutableAt(dk, key);
    task.dv = MutableAt(dv, key);
    task.add = add;
    task.token_stride = query_heads * width;
    task.kv_stride = groups * width;
    task.tokens = span.queries;
    task.seen = span.seen;
    task.keys = task.Seen(span.queries - 1);
    task.heads = heads;
    task.width = width;
    task.scale = static_cast<float>(scale);
    task.lse = lse.data<float>() + statistics;
    task.lse_stride = tokens;
    kernels.backward(task, scratch);
  });
}

}  // namespace attention

namespace {

std::vector<attention::Span> WholeSequences(const int32_t* starts, int64_t sequences) {
  std::vector<attention::Span> spans(sequences);
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t length = starts[s + 1] - starts[s];
    spans[s] = {starts[s], length, starts[s], length, nullptr};
  }
  return spans;
}

}  // namespace

void CpuOps::Attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& offsets, double scale,
                       const Tensor& y, const Tensor& lse) {
  const int64_t tokens = q.dim(0), groups = k.dim(1);
  attention::HeadsOfGroup(q, k, groups, k.dim(2), scale);
  CheckShape("Attention", k, {tokens, groups, q.dim(2)});
  CheckSameShape("Attention", k, v);
  CheckSameShape("Attention", q, y);
  CheckShape("Attention", lse, {q.dim(1), tokens});
  for (const Tensor* other : {&k, &v, &y}) CheckSameType("Attention", q, *other);
  const int64_t sequences = offsets.dim(0) - 1;
  const int32_t* starts = CheckOffsets("Attention", offsets, sequences, tokens);
  attention::ForwardSpans(q, k, v, WholeSequences(starts, sequences), scale, y, lse);
}

void CpuOps::AttentionGrad(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v,
                           const Tensor& y, const Tensor& lse, const Tensor& offsets, double scale,
                           const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  const int64_t tokens = q.dim(0), groups = k.dim(1);
  attention::HeadsOfGroup(q, k, groups, k.dim(2), scale);
  CheckShape("AttentionGrad", k, {tokens, groups, q.dim(2)});
  CheckShape("AttentionGrad", lse, {q.dim(1), tokens});
  for (const Tensor* other : {&dy, &y, &dq}) CheckSameShape("AttentionGrad", q, *other);
  for (const Tensor* other : {&v, &dk, &dv}) CheckSameShape("AttentionGrad", k, *other);
  for (const Tensor* other : {&dy, &k, &v, &y, &dq, &dk, &dv}) CheckSameType("AttentionGrad", q, *other);
  const int64_t sequences = offsets.dim(0) - 1;
  const int32_t* starts = CheckOffsets("AttentionGrad", offsets, sequences, tokens);
  attention::BackwardSpans(dy, q, k, v, {.y = &y}, lse, WholeSequences(starts, sequences), scale,
                           /*add=*/false, dq, dk, dv);
}

}  // namespace cohort::runtime
