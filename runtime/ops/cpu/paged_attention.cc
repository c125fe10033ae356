// Attention over key/value pages, for serving: decoding (one query a sequence, bound by the memory
// bandwidth at which pages stream in) and chunked prefill (many). The kernels are those of attention.cc;
// when sequences and heads are fewer than threads, the keys are split too and the parts merged
// (Flash-Decoding: Dao et al., 2023).
#include <cstring>
#include <vector>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cpu/attention_units.h"
#include "runtime/ops/cpu/cpu_ops.h"
#include "runtime/ops/cpu/parallel.h"

namespace cohort::runtime {
namespace {

using attention::At;
using attention::MutableAt;

// Fewest keys that are worth a part of their own.
constexpr int64_t kKeysPerPart = 512;

void CheckPages(const KvPages& pages, const Tensor& like) {
  COHORT_CHECK(pages.keys.rank() == 4, "key pages %s", pages.keys.DebugString().c_str());
  CheckSameShape("KvPages", pages.keys, pages.values);
  CheckSameType("KvPages", pages.keys, pages.values);
  CheckSameType("KvPages", pages.keys, like);
}

}  // namespace

void CpuOps::StoreKv(const Tensor& k, const Tensor& v, const Tensor& slots, const KvPages& pages) {
  CheckPages(pages, k);
  CheckSameType("StoreKv", k, v);
  const int64_t tokens = k.dim(0), groups = pages.keys.dim(1), width = pages.keys.dim(3);
  const int64_t page_size = pages.page_size(), page_count = pages.keys.dim(0);
  CheckShape("StoreKv", k, {tokens, groups, width});
  CheckSameShape("StoreKv", k, v);
  CheckShape("StoreKv", slots, {tokens});
  const int32_t* slot = slots.data<int32_t>();
  const size_t row_bytes = width * SizeOf(k.dtype());
  ParallelFor(tokens, 64, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      COHORT_CHECK(slot[t] >= 0 && slot[t] < page_count * page_size, "slot %d of %ld pages of %ld tokens",
                   slot[t], static_cast<long>(page_count), static_cast<long>(page_size));
      const int64_t page = slot[t] / page_size, place = slot[t] % page_size;
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t from = (t * groups + g) * width, to = ((page * groups + g) * page_size + place) * width;
        std::memcpy(MutableAt(pages.keys, to), At(k, from), row_bytes);
        std::memcpy(MutableAt(pages.values, to), At(v, from), row_bytes);
      }
    }
  });
}

void CpuOps::PagedAttention(const Tensor& q, const KvPages& pages, const Tensor& page_table,
                            const Tensor& query_offsets, const Tensor& context_lengths, double scale,
                            const Tensor& y) {
  CheckPages(pages, q);
  const int64_t groups = pages.keys.dim(1), page_size = pages.page_size(), width = pages.keys.dim(3);
  const int64_t query_heads = q.dim(1), heads = attention::HeadsOfGroup(q, pages.keys, groups, width, scale);
  const int64_t sequences = context_lengths.dim(0);
  CheckSameShape("PagedAttention", q, y);
  CheckSameType("PagedAttention", q, y);
  const int32_t* starts = CheckOffsets("PagedAttention", query_offsets, sequences, q.dim(0));
  const int32_t* lengths = context_lengths.data<int32_t>();

  std::vector<attention::ForwardTask> tasks;
  const int64_t chunk = attention::UnitTokens(heads);
  int64_t most = 0, longest = 0;
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t queries = starts[s + 1] - starts[s], before = lengths[s] - queries;
    if (queries == 0) continue;
    COHORT_CHECK(before >= 0, "sequence %ld has %ld queries, but a context of %d", static_cast<long>(s),
                 static_cast<long>(queries), lengths[s]);
    COHORT_CHECK(lengths[s] <= page_table.dim(1) * page_size, "a context of %d in a page table of %ld pages",
                 lengths[s], static_cast<long>(page_table.dim(1)));
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t first = 0; first < queries; first += chunk) {
        attention::ForwardTask task;
        task.kv.keys = At(pages.keys, g * page_size * width);
        task.kv.values = At(pages.values, g * page_size * width);
        task.kv.stride = width;
        task.kv.page_table = page_table.data<int32_t>() + s * page_table.dim(1);
        task.kv.page_size = page_size;
        task.kv.page_stride = groups * page_size * width;
        const int64_t row = ((starts[s] + first) * query_heads + g * heads) * width;
        task.q = At(q, row);
        task.y = MutableAt(y, row);
        task.token_stride = query_heads * width;
        task.tokens = std::min(chunk, queries - first);
        task.heads = heads;
        task.width = width;
        task.first_seen = before + first + 1;
        task.key_end = before + first + task.tokens;
        task.scale = static_cast<float>(scale);
        tasks.push_back(task);
        most = std::max(most, task.rows());
        longest = std::max(longest, task.key_end);
      }
    }
  }
  if (tasks.empty()) return;

  const attention::Kernels& kernels = attention::KernelsFor(q.dtype());
  const int64_t count = tasks.size(), threads = CpuThreads();
  const int64_t parts = std::clamp<int64_t>(
      (threads + count - 1) / count, 1,
      std::min<int64_t>(attention::kMaxParts, std::max<int64_t>(1, longest / kKeysPerPart)));
  const int64_t state_floats = attention::StateFloats(most, width);
  const size_t scratch_bytes = attention::ForwardScratchBytes(most, width);
  if (parts == 1) {
    const size_t state_bytes = state_floats * sizeof(float);
    attention::RunUnits(q.device(), kernels, count, state_bytes + scratch_bytes,
                        [&](int64_t i, void* scratch) {
                          float* state = static_cast<float*>(scratch);
                          kernels.forward(tasks[i], state, static_cast<char*>(scratch) + state_bytes);
                          kernels.finish(tasks[i], &state, 1);
                        });
    return;
  }
  const std::shared_ptr<void> memory = q.device().Allocate(count * parts * state_floats * sizeof(float));
  float* states = static_cast<float*>(memory.get());
  attention::RunUnits(q.device(), kernels, count * parts, scratch_bytes, [&](int64_t i, void* scratch) {
    attention::ForwardTask task = tasks[i / parts];
    const int64_t share = attention::RoundUp((task.key_end + parts - 1) / parts, attention::kKeyBlock);
    const int64_t end = task.key_end;
    task.key_begin = std::min(end, i % parts * share);
    task.key_end = std::min(end, task.key_begin + share);
    kernels.forward(task, states + i * state_floats, scratch);
  });
  attention::RunUnits(q.device(), kernels, count, 0, [&](int64_t i, void*) {
    const float* of_parts[attention::kMaxParts];
    for (int64_t p = 0; p < parts; ++p) of_parts[p] = states + (i * parts + p) * state_floats;
    kernels.finish(tasks[i], of_parts, static_cast<int>(parts));
  });
}

}  // namespace cohort::runtime
