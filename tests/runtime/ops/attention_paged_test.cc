// StoreKv and PagedAttention: against the reference, and against Attention on the same tokens.
#include <algorithm>
#include <numeric>

#include "tests/runtime/ops/compare.h"

namespace cohort::runtime {
namespace {

struct Sequence {
  int32_t context, queries;
};

struct Case {
  std::vector<Sequence> sequences;
  int64_t heads, groups, width, page_size;
};

const Case kCases[] = {
    {{}, 4, 2, 64, 16},
    {{{1, 1}}, 1, 1, 8, 4},
    {{{5, 1}, {40, 0}, {77, 1}, {16, 1}}, 8, 2, 64, 16},
    {{{600, 1}}, 4, 1, 128, 32},
    {{{1700, 1}}, 5, 1, 96, 7},
    {{{90, 90}, {33, 8}, {1, 1}}, 4, 4, 80, 16},
    {{{700, 130}, {270, 1}}, 6, 2, 64, 64},
    {{{1500, 3}}, 2, 1, 24, 16},
};

class PagedAttentionTest : public OpsTest {
 protected:
  // Pages in shuffled order, with one more than needed; their contents random, as stale pages are.
  struct Cache {
    Twin keys, values, table, offsets, lengths, q;
    KvPages tested() const { return {keys.tested, values.tested}; }
    KvPages reference() const { return {keys.reference, values.reference}; }
  };
  Cache Make(const Case& c, DataType dtype) {
    std::vector<int32_t> offsets = {0}, lengths, table;
    int32_t needed = 0, widest = 1;
    for (const Sequence& s : c.sequences) {
      const int32_t pages = static_cast<int32_t>((s.context + c.page_size - 1) / c.page_size);
      widest = std::max(widest, pages);
      needed += pages;
    }
    std::vector<int32_t> free(needed + 1);
    std::iota(free.begin(), free.end(), 0);
    std::shuffle(free.begin(), free.end(), generator_);
    for (const Sequence& s : c.sequences) {
      offsets.push_back(offsets.back() + s.queries);
      lengths.push_back(s.context);
      for (int32_t p = 0; p < widest; ++p) {
        const bool used = p * c.page_size < s.context;
        table.push_back(used ? free.back() : -1);
        if (used) free.pop_back();
      }
    }
    const int64_t sequences = lengths.size();
    const Shape pages = {needed + 1, c.groups, c.page_size, c.width};
    return {Random(pages, dtype),
            Random(pages, dtype),
            FromIndices({sequences, widest}, table),
            FromIndices({sequences + 1}, offsets),
            FromIndices({sequences}, lengths),
            Random({offsets.back(), c.heads, c.width}, dtype)};
  }
};

TEST_P(PagedAttentionTest, MatchesTheReference) {
  for (DataType dtype : kComputeTypes) {
    for (const Case& c : kCases) {
      const Cache cache = Make(c, dtype);
      const Twin y = Output(cache.q.tested.shape(), dtype);
      reference().PagedAttention(cache.q.reference, cache.reference(), cache.table.reference,
                                 cache.offsets.reference, cache.lengths.reference, 0.2, y.reference);
      for (int threads : {1, 2, 5}) {
        SetCpuThreads(threads);
        tested().PagedAttention(cache.q.tested, cache.tested(), cache.table.tested, cache.offsets.tested,
                                cache.lengths.tested, 0.2, y.tested);
        ExpectTwin(y, dtype, "y");
      }
    }
  }
}

TEST_P(PagedAttentionTest, BitsDoNotDependOnTheRun) {
  const Case c = {{{900, 1}, {700, 40}}, 4, 1, 64, 16};
  for (DataType dtype : kComputeTypes) {
    const Cache cache = Make(c, dtype);
    for (int threads : {1, 2, 3}) {
      SetCpuThreads(threads);
      const Twin a = Output(cache.q.tested.shape(), dtype), b = Output(cache.q.tested.shape(), dtype);
      for (const Twin* y : {&a, &b}) {
        tested().PagedAttention(cache.q.tested, cache.tested(), cache.table.tested, cache.offsets.tested,
                                cache.lengths.tested, 0.2, y->tested);
      }
      ExpectSameBits(a.tested, b.tested, "y");
    }
  }
}

// One sequence stored in the pages and asked in chunks gives what Attention gives.
TEST_P(PagedAttentionTest, ChunksEqualWholeAttention) {
  const int64_t tokens = 150, heads = 4, groups = 2, width = 64, page_size = 16, pages = 12;
  for (DataType dtype : kComputeTypes) {
    const Twin q = Random({tokens, heads, width}, dtype), k = Random({tokens, groups, width}, dtype);
    const Twin v = Random({tokens, groups, width}, dtype);
    const Twin y = Output({tokens, heads, width}, dtype), lse = Output({heads, tokens}, DataType::kF32);
    tested().Attention(q.tested, k.tested, v.tested,
                       FromIndices({2}, {0, static_cast<int32_t>(tokens)}).tested, 0.125, y.tested,
                       lse.tested);

    const Twin key_pages = Random({pages, groups, page_size, width}, dtype);
    const Twin value_pages = Random({pages, groups, page_size, width}, dtype);
    const KvPages cache = {key_pages.tested, value_pages.tested};
    std::vector<int32_t> table(pages), slots(tokens);
    for (int32_t p = 0; p < pages; ++p) table[p] = static_cast<int32_t>((p * 5 + 3) % pages);
    for (int32_t t = 0; t < tokens; ++t) {
      slots[t] = static_cast<int32_t>(table[t / page_size] * page_size + t % page_size);
    }
    tested().StoreKv(k.tested, v.tested, FromIndices({tokens}, slots).tested, cache);
    const Twin chunked = Output({tokens, heads, width}, dtype);
    for (const auto& [begin, end] : {std::pair<int32_t, int32_t>{0, 100}, {100, 101}, {101, 150}}) {
      tested().PagedAttention(q.tested.Slice(begin, end), cache, FromIndices({1, pages}, table).tested,
                              FromIndices({2}, {0, end - begin}).tested, FromIndices({1}, {end}).tested,
                              0.125, chunked.tested.Slice(begin, end));
    }
    EXPECT_LT(RelativeError(ToHost(chunked.tested), ToHost(y.tested)), Tolerance(dtype));
  }
}

TEST_P(PagedAttentionTest, StoreKvWritesItsSlotsAndNoOthers) {
  for (DataType dtype : kComputeTypes) {
    const Twin k = Random({70, 3, 10}, dtype), v = Random({70, 3, 10}, dtype);
    const Twin keys = Random({20, 3, 4, 10}, dtype), values = Random({20, 3, 4, 10}, dtype);
    std::vector<int32_t> slots(80);
    std::iota(slots.begin(), slots.end(), 0);
    std::shuffle(slots.begin(), slots.end(), generator_);
    slots.resize(70);
    const Twin at = FromIndices({70}, slots);
    tested().StoreKv(k.tested, v.tested, at.tested, {keys.tested, values.tested});
    reference().StoreKv(k.reference, v.reference, at.reference, {keys.reference, values.reference});
    EXPECT_EQ(ToHost(keys.tested), ToHost(keys.reference));
    EXPECT_EQ(ToHost(values.tested), ToHost(values.reference));
  }
}

COHORT_ON_EVERY_DEVICE(PagedAttentionTest);

}  // namespace
}  // namespace cohort::runtime
