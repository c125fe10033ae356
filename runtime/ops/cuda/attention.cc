// Attention: which kernels take a call. bf16 of widths that are multiples of 8 goes to tensor cores, the rest to
// attention_plain.cu.
#include "runtime/ops/cuda/attention.h"

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cuda/compute_type.h"
#include "runtime/ops/cuda/cuda_ops.h"
#include "runtime/ops/cuda/layers.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

// Sequences of paged calls with at most so many queries are decoded (a token, or a few that were drafted); longer ones
// are prefilled in tiles of 128 queries.
constexpr int64_t kDecodeQueries = 8;

AttentionCall CallOf(const char* op, const Tensor& q, const Tensor& k, int64_t groups, int64_t width,
                     const Tensor& q_offsets, int64_t sequences, double scale) {
  COHORT_CHECK(q.rank() == 3 && q.dim(2) == width && groups > 0 && q.dim(1) % groups == 0 && scale > 0,
               "%s: queries %s, keys %s, scale %g", op, q.DebugString().c_str(), k.DebugString().c_str(),
               scale);
  CheckShape(op, q_offsets, {sequences + 1});
  AttentionCall call;
  call.tokens = q.dim(0);
  call.keys = k.dim(0);
  call.heads = q.dim(1);
  call.groups = groups;
  call.width = width;
  call.sequences = sequences;
  call.scale = static_cast<float>(scale);
  call.q_offsets = Indices(q_offsets);
  return call;
}

void CheckFits(const char* op, const Queue& queue, size_t shared, int64_t width) {
  COHORT_CHECK(shared <= static_cast<size_t>(queue.shared_limit),
               "%s: heads of %ld need %zu bytes of shared memory, of which this device has %d", op,
               static_cast<long>(width), shared, queue.shared_limit);
}

void Forward(const char* op, const Queue& queue, const AttentionCall& call, const Tensor& q, const Tensor& k,
             const Tensor& v, const Tensor& y, float* lse) {
  if (call.tokens == 0 || call.heads == 0 || call.width == 0) return;
  const bool y_is_float = y.dtype() == DataType::kF32;
  if (q.dtype() == DataType::kBF16 && ForwardTakes(queue, call, q.raw(), k.raw(), v.raw(), y.raw())) {
    const auto run = HopperTakes(queue, call) ? AttentionHopper : AttentionForward;
    return run(queue, call, Data<Bf16>(q), Data<Bf16>(k), Data<Bf16>(v), y.raw(), y_is_float, lse);
  }
  CheckFits(op, queue, PlainForwardShared(call.width), call.width);
  WithComputeType(op, q, [&]<typename T>(T) {
    PlainForward<T>(queue, call, Data<T>(q), Data<T>(k), Data<T>(v), y.raw(), y_is_float, lse);
  });
}

void Backward(const char* op, const Queue& queue, const AttentionCall& call, const Tensor& dy,
              const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& lse, const Tensor& delta,
              const AttentionGrads& grads) {
  if (call.heads == 0 || call.width == 0) return;
  if (q.dtype() == DataType::kBF16 &&
      BackwardTakes(queue, call, dy.raw(), q.raw(), k.raw(), v.raw(), grads)) {
    const auto run = HopperTakes(queue, call) ? AttentionHopperBackward : AttentionBackward;
    return run(queue, call, Data<Bf16>(dy), Data<Bf16>(q), Data<Bf16>(k), Data<Bf16>(v), Floats(lse),
               Floats(delta), grads);
  }
  CheckFits(op, queue, PlainBackwardShared(call.width), call.width);
  WithComputeType(op, q, [&]<typename T>(T) {
    PlainBackward<T>(queue, call, Data<T>(dy), Data<T>(q), Data<T>(k), Data<T>(v), Floats(lse), Floats(delta),
                     grads);
  });
}

void CheckInputs(const char* op, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& lse) {
  CheckSameShape(op, k, v);
  CheckShape(op, lse, {q.dim(1), q.dim(0)});
  for (const Tensor* other : {&k, &v}) CheckSameType(op, q, *other);
}

void CheckOutput(const char* op, const Tensor& q, const Tensor& y) {
  CheckSameShape(op, q, y);
  if (y.dtype() != DataType::kF32) CheckSameType(op, q, y);
}

}  // namespace

void CudaOps::Attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& offsets,
                        double scale, const Tensor& y, const Tensor& lse) {
  CheckInputs("Attention", q, k, v, lse);
  CheckShape("Attention", k, {q.dim(0), k.dim(1), q.dim(2)});
  CheckSameShape("Attention", q, y);
  CheckSameType("Attention", q, y);
  AttentionCall call = CallOf("Attention", q, k, k.dim(1), k.dim(2), offsets, offsets.dim(0) - 1, scale);
  call.k_offsets = call.q_offsets;
  Forward("Attention", Enter(), call, q, k, v, y, Floats(lse));
}

void CudaOps::AttentionGrad(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v,
                            const Tensor& y, const Tensor& lse, const Tensor& offsets, double scale,
                            const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  CheckInputs("AttentionGrad", q, k, v, lse);
  CheckShape("AttentionGrad", k, {q.dim(0), k.dim(1), q.dim(2)});
  for (const Tensor* other : {&dy, &y, &dq}) CheckSameShape("AttentionGrad", q, *other);
  for (const Tensor* other : {&dk, &dv}) CheckSameShape("AttentionGrad", k, *other);
  for (const Tensor* other : {&dy, &y, &dq, &dk, &dv}) CheckSameType("AttentionGrad", q, *other);
  AttentionCall call = CallOf("AttentionGrad", q, k, k.dim(1), k.dim(2), offsets, offsets.dim(0) - 1, scale);
  call.k_offsets = call.q_offsets;
  const Tensor delta = Scratch(lse.shape(), DataType::kF32);
  AttentionDelta(dy, y, delta);
  Backward("AttentionGrad", Enter(), call, dy, q, k, v, lse, delta, {dq.raw(), dk.raw(), dv.raw(), false});
}

void CudaOps::AttentionPart(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& q_offsets,
                            const Tensor& k_offsets, const Tensor& q_positions, const Tensor& k_positions,
                            double scale, const Tensor& y, const Tensor& lse) {
  CheckInputs("AttentionPart", q, k, v, lse);
  CheckOutput("AttentionPart", q, y);
  const int64_t sequences = q_offsets.dim(0) - 1;
  AttentionCall call = CallOf("AttentionPart", q, k, k.dim(1), k.dim(2), q_offsets, sequences, scale);
  CheckShape("AttentionPart", k_offsets, {sequences + 1});
  CheckShape("AttentionPart", q_positions, {call.tokens});
  CheckShape("AttentionPart", k_positions, {call.keys});
  call.k_offsets = Indices(k_offsets);
  const Queue& queue = Enter();
  const Tensor seen = Scratch({call.tokens}, DataType::kI32);
  CountSeen(queue, call, Indices(q_positions), Indices(k_positions), Indices(seen));
  call.seen = Indices(seen);
  Forward("AttentionPart", queue, call, q, k, v, y, Floats(lse));
}

void CudaOps::MergeAttention(const Tensor& y_part, const Tensor& lse_part, const Tensor& y,
                             const Tensor& lse) {
  const int64_t tokens = y.dim(0), heads = y.dim(1), width = y.dim(2);
  CheckSameShape("MergeAttention", y_part, y);
  CheckSameShape("MergeAttention", lse_part, lse);
  CheckShape("MergeAttention", lse, {heads, tokens});
  WithComputeType("MergeAttention", y_part, [&]<typename P>(P) {
    WithComputeType("MergeAttention", y, [&]<typename T>(T) {
      MergeRows<P, T>(Enter(), Data<P>(y_part), Floats(lse_part), Data<T>(y), Floats(lse), tokens, heads,
                      width);
    });
  });
}

void CudaOps::AttentionDelta(const Tensor& dy, const Tensor& y, const Tensor& delta) {
  CheckOutput("AttentionDelta", dy, y);
  CheckShape("AttentionDelta", delta, {dy.dim(1), dy.dim(0)});
  WithComputeType("AttentionDelta", dy, [&]<typename T>(T) {
    DeltaRows<T>(Enter(), Data<T>(dy), y.raw(), y.dtype() == DataType::kF32, Floats(delta), dy.dim(0),
                 dy.dim(1), dy.dim(2));
  });
}

void CudaOps::AttentionPartGrad(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v,
                                const Tensor& lse, const Tensor& delta, const Tensor& q_offsets,
                                const Tensor& k_offsets, const Tensor& q_positions, const Tensor& k_positions,
                                double scale, const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  CheckInputs("AttentionPartGrad", q, k, v, lse);
  CheckSameShape("AttentionPartGrad", lse, delta);
  CheckSameShape("AttentionPartGrad", q, dy);
  CheckSameType("AttentionPartGrad", q, dy);
  CheckSameShape("AttentionPartGrad", q, dq);
  for (const Tensor* other : {&dk, &dv}) CheckSameShape("AttentionPartGrad", k, *other);
  for (const Tensor* other : {&dq, &dk, &dv}) CheckType("AttentionPartGrad", *other, DataType::kF32);
  const int64_t sequences = q_offsets.dim(0) - 1;
  AttentionCall call = CallOf("AttentionPartGrad", q, k, k.dim(1), k.dim(2), q_offsets, sequences, scale);
  CheckShape("AttentionPartGrad", k_offsets, {sequences + 1});
  CheckShape("AttentionPartGrad", q_positions, {call.tokens});
  CheckShape("AttentionPartGrad", k_positions, {call.keys});
  call.k_offsets = Indices(k_offsets);
  const Queue& queue = Enter();
  const Tensor seen = Scratch({call.tokens}, DataType::kI32);
  CountSeen(queue, call, Indices(q_positions), Indices(k_positions), Indices(seen));
  call.seen = Indices(seen);
  Backward("AttentionPartGrad", queue, call, dy, q, k, v, lse, delta, {dq.raw(), dk.raw(), dv.raw(), true});
}

void CudaOps::StoreKv(const Tensor& k, const Tensor& v, const Tensor& slots, const KvPages& pages) {
  COHORT_CHECK(pages.keys.rank() == 4, "key pages %s", pages.keys.DebugString().c_str());
  CheckSameShape("KvPages", pages.keys, pages.values);
  for (const Tensor* other : {&v, &pages.keys, &pages.values}) CheckSameType("StoreKv", k, *other);
  const int64_t tokens = k.dim(0), groups = pages.keys.dim(1), width = pages.keys.dim(3);
  CheckShape("StoreKv", k, {tokens, groups, width});
  CheckSameShape("StoreKv", k, v);
  CheckShape("StoreKv", slots, {tokens});
  StoreKvBytes(Enter(), k.raw(), v.raw(), Indices(slots), pages.keys.raw(), pages.values.raw(), tokens,
               groups, pages.page_size(), pages.keys.dim(0), width * static_cast<int64_t>(SizeOf(k.dtype())));
}

void CudaOps::PagedAttention(const Tensor& q, const KvPages& pages, const Tensor& page_table,
                             const Tensor& query_offsets, const Tensor& context_lengths, double scale,
                             const Tensor& y) {
  COHORT_CHECK(pages.keys.rank() == 4, "key pages %s", pages.keys.DebugString().c_str());
  CheckSameShape("KvPages", pages.keys, pages.values);
  CheckSameShape("PagedAttention", q, y);
  for (const Tensor* other : {&y, &pages.keys, &pages.values}) CheckSameType("PagedAttention", q, *other);
  const int64_t sequences = context_lengths.dim(0);
  AttentionCall call = CallOf("PagedAttention", q, pages.keys, pages.keys.dim(1), pages.keys.dim(3),
                              query_offsets, sequences, scale);
  COHORT_CHECK(page_table.rank() == 2 && page_table.dim(0) == sequences,
               "PagedAttention of %ld sequences in %s", static_cast<long>(sequences),
               page_table.DebugString().c_str());
  if (call.tokens == 0 || call.heads == 0 || call.width == 0) return;
  call.page_table = Indices(page_table);
  call.lengths = Indices(context_lengths);
  call.table_width = page_table.dim(1);
  call.page_size = pages.page_size();
  call.pages = pages.keys.dim(0);
  const Queue& queue = Enter();
  if (q.dtype() == DataType::kBF16 &&
      DecodeTakes(queue, call, q.raw(), pages.keys.raw(), pages.values.raw(), y.raw())) {
    // With no more tokens than sequences everything is decoded; otherwise both kernels run, each on its sequences.
    const bool all = call.tokens <= sequences ||
                     !ForwardTakes(queue, call, q.raw(), pages.keys.raw(), pages.values.raw(), y.raw());
    call.decode_queries = all ? call.tokens : kDecodeQueries;
    const int64_t splits = DecodeSplits(queue, call);
    const bool split = splits > 1;
    const Tensor part_y =
        split ? Scratch({splits, call.tokens, call.heads, call.width}, DataType::kF32) : Tensor();
    const Tensor part_lse = split ? Scratch({splits, call.tokens, call.heads}, DataType::kF32) : Tensor();
    PagedDecode(queue, call, splits, Data<Bf16>(q), Data<Bf16>(pages.keys), Data<Bf16>(pages.values),
                Data<Bf16>(y), Floats(part_y), Floats(part_lse));
    if (all) return;
  }
  Forward("PagedAttention", queue, call, q, pages.keys, pages.values, y, nullptr);
}

}  // namespace cohort::runtime::COHORT_CUDA
