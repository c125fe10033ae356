// Attention to a part of the keys. Positions ascend on both sides, so what a query sees is a prefix of its
// sequence's keys, whatever the layout (contiguous, zigzag, striped): its length takes the place of the
// causal i + 1 in the kernels of attention.cc.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cpu/attention_units.h"
#include "runtime/ops/cpu/compute_type.h"
#include "runtime/ops/cpu/cpu_ops.h"
#include "runtime/ops/cpu/kernels.h"
#include "runtime/ops/cpu/parallel.h"
#include "runtime/ops/cpu/policy.h"

namespace cohort::runtime {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

void CheckAscending(const char* op, const char* what, const int32_t* positions, int64_t begin, int64_t end) {
  const int32_t* broken = std::is_sorted_until(positions + begin, positions + end);
  COHORT_CHECK(broken == positions + end, "%s: position %d of %s %ld follows %d; positions ascend", op,
               broken[0], what, static_cast<long>(broken - positions), broken[-1]);
}

// Who sees what in one call.
struct Sight {
  std::vector<int32_t> seen;           // [T]: keys of its sequence that a query sees
  std::vector<attention::Span> spans;  // the queries that see some; they point into `seen`
  std::vector<attention::Span> blind;  // the others
};

Sight LookAt(const char* op, const Tensor& q, const Tensor& k, const Tensor& q_offsets,
             const Tensor& k_offsets, const Tensor& q_positions, const Tensor& k_positions) {
  const int64_t tokens = q.dim(0), keys = k.dim(0), sequences = q_offsets.dim(0) - 1;
  const int32_t* q_starts = CheckOffsets(op, q_offsets, sequences, tokens);
  const int32_t* k_starts = CheckOffsets(op, k_offsets, sequences, keys);
  CheckShape(op, q_positions, {tokens});
  CheckShape(op, k_positions, {keys});
  const int32_t *q_at = q_positions.data<int32_t>(), *k_at = k_positions.data<int32_t>();
  Sight sight;
  sight.seen.resize(tokens);
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t begin = q_starts[s], end = q_starts[s + 1];
    CheckAscending(op, "query", q_at, begin, end);
    CheckAscending(op, "key", k_at, k_starts[s], k_starts[s + 1]);
    int64_t key = k_starts[s], first = end;
    for (int64_t t = begin; t < end; ++t) {
      while (key < k_starts[s + 1] && k_at[key] <= q_at[t]) ++key;
      sight.seen[t] = static_cast<int32_t>(key - k_starts[s]);
      if (first == end && sight.seen[t] > 0) first = t;
    }
    if (first > begin) sight.blind.push_back({begin, first - begin, 0, 0, nullptr});
    if (first < end) {
      sight.spans.push_back({first, end - first, k_starts[s], key - k_starts[s], sight.seen.data() + first});
    }
  }
  return sight;
}

void CheckParts(const char* op, const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                const Tensor& lse) {
  attention::HeadsOfGroup(q, k, k.dim(1), k.dim(2), scale);
  CheckSameShape(op, k, v);
  CheckShape(op, lse, {q.dim(1), q.dim(0)});
  for (const Tensor* other : {&k, &v}) CheckSameType(op, q, *other);
}

void CheckOutput(const char* op, const Tensor& q, const Tensor& y) {
  CheckSameShape(op, q, y);
  if (y.dtype() != DataType::kF32) CheckSameType(op, q, y);
}

}  // namespace

void CpuOps::AttentionPart(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& q_offsets,
                           const Tensor& k_offsets, const Tensor& q_positions, const Tensor& k_positions,
                           double scale, const Tensor& y, const Tensor& lse) {
  CheckParts("AttentionPart", q, k, v, scale, lse);
  CheckOutput("AttentionPart", q, y);
  const Sight sight = LookAt("AttentionPart", q, k, q_offsets, k_offsets, q_positions, k_positions);
  const int64_t row = q.dim(1) * q.dim(2), tokens = q.dim(0);
  for (const attention::Span& span : sight.blind) {
    Fill(y.Slice(span.query, span.query + span.queries), 0);
    for (int64_t h = 0; h < q.dim(1); ++h) {
      std::fill_n(lse.data<float>() + h * tokens + span.query, span.queries, kNothing);
    }
  }
  if (row > 0) attention::ForwardSpans(q, k, v, sight.spans, scale, y, lse);
}

void CpuOps::MergeAttention(const Tensor& y_part, const Tensor& lse_part, const Tensor& y,
                            const Tensor& lse) {
  const int64_t tokens = y.dim(0), heads = y.dim(1), width = y.dim(2);
  CheckSameShape("MergeAttention", y_part, y);
  CheckSameShape("MergeAttention", lse_part, lse);
  CheckShape("MergeAttention", lse, {heads, tokens});
  const float* part_lse = lse_part.data<float>();
  float* whole_lse = lse.data<float>();
  const int64_t grain = 1 + cpu_policy::kElementGrain / (heads * width + 1);
  WithComputeType("MergeAttention", y_part, [&]<typename P>(P) {
    WithComputeType("MergeAttention", y, [&]<typename T>(T) {
      ParallelFor(tokens, grain, 1, [&](int64_t begin, int64_t end) {
        std::vector<float> sum(width);
        for (int64_t t = begin; t < end; ++t) {
          for (int64_t h = 0; h < heads; ++h) {
            const float theirs = part_lse[h * tokens + t];
            float& ours = whole_lse[h * tokens + t];
            if (theirs == kNothing) continue;
            const float top = std::max(theirs, ours);
            const float a = std::exp(theirs - top), b = std::exp(ours - top), weight = 1 / (a + b);
            const P* from = y_part.data<P>() + (t * heads + h) * width;
            T* to = y.data<T>() + (t * heads + h) * width;
            ours = top + std::log(a + b);
            if constexpr (std::is_same_v<T, float>) {
              KernelsOf<float>().scale(to, b * weight, width);
              KernelsOf<P>().accumulate_state(from, a * weight, to, width);
            } else {
              KernelsOf<T>().to_float(to, sum.data(), width);
              KernelsOf<float>().scale(sum.data(), b * weight, width);
              KernelsOf<P>().accumulate_state(from, a * weight, sum.data(), width);
              KernelsOf<T>().from_float(sum.data(), to, width);
            }
          }
        }
      });
    });
  });
}

void CpuOps::AttentionDelta(const Tensor& dy, const Tensor& y, const Tensor& delta) {
  const int64_t tokens = dy.dim(0), heads = dy.dim(1), width = dy.dim(2), row = heads * width;
  CheckOutput("AttentionDelta", dy, y);
  CheckShape("AttentionDelta", delta, {heads, tokens});
  CheckType("AttentionDelta", delta, DataType::kF32);
  const attention::Kernels& kernels = attention::KernelsFor(dy.dtype());
  ParallelFor(tokens, 1 + cpu_policy::kElementGrain / (row + 1), 1, [&](int64_t begin, int64_t end) {
    attention::BackwardTask task;
    task.dy = attention::At(dy, begin * row);
    task.y = attention::At(y, begin * row);
    task.y_is_float = y.dtype() == DataType::kF32;
    task.token_stride = row;
    task.tokens = end - begin;
    task.heads = heads;
    task.width = width;
    task.lse_stride = tokens;
    kernels.delta(task, delta.data<float>() + begin);
  });
}

void CpuOps::AttentionPartGrad(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v,
                               const Tensor& lse, const Tensor& delta, const Tensor& q_offsets,
                               const Tensor& k_offsets, const Tensor& q_positions, const Tensor& k_positions,
                               double scale, const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  CheckParts("AttentionPartGrad", q, k, v, scale, lse);
  CheckSameShape("AttentionPartGrad", lse, delta);
  CheckSameShape("AttentionPartGrad", q, dy);
  CheckSameType("AttentionPartGrad", q, dy);
  CheckSameShape("AttentionPartGrad", q, dq);
  for (const Tensor* other : {&dk, &dv}) CheckSameShape("AttentionPartGrad", k, *other);
  for (const Tensor* other : {&dq, &dk, &dv}) CheckType("AttentionPartGrad", *other, DataType::kF32);
  const Sight sight = LookAt("AttentionPartGrad", q, k, q_offsets, k_offsets, q_positions, k_positions);
  attention::BackwardSpans(dy, q, k, v, {.delta = &delta}, lse, sight.spans, scale, /*add=*/true, dq, dk, dv);
}

}  // namespace cohort::runtime
