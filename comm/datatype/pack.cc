#include "comm/datatype/pack.h"

#include <cstring>
#include <type_traits>

#include "comm/policy.h"
#include "comm/processor.h"

namespace cohort::comm {
namespace {

// Runs of a length known when compiled are a load and a store; others are copied in wide pieces, the last of which may
// overlap the one before.
template <size_t run>
struct FixedRun {
  static COHORT_INLINE void Copy(const std::byte* from, std::byte* to, size_t) { std::memcpy(to, from, run); }
};

template <size_t piece>
COHORT_INLINE void CopyPieces(const std::byte* from, std::byte* to, size_t run) {
  for (size_t at = 0; at + piece < run; at += piece) std::memcpy(to + at, from + at, piece);
  std::memcpy(to + run - piece, from + run - piece, piece);
}

struct AnyRun {
  static COHORT_INLINE void Copy(const std::byte* from, std::byte* to, size_t run) {
    if (run >= policy::kDatatypeLongRun) {
      std::memcpy(to, from, run);
    } else if (run >= 32) {
      CopyPieces<32>(from, to, run);
    } else if (run >= 8) {
      CopyPieces<8>(from, to, run);
    } else if (run >= 2) {
      CopyPieces<2>(from, to, run);
    } else {
      *to = *from;
    }
  }
};

// The two innermost levels. Strided memory comes a cache line a run, mostly farther apart than the processor's own
// prefetch looks: lines are asked for some runs ahead, across the end of the inner loop.
template <typename Run, bool pack>
COHORT_INLINE void Copy2(const StrideLevel& outer, const StrideLevel& inner, size_t run, std::byte* strided,
                         std::byte* dense) {
  constexpr size_t kAhead = policy::kDatatypePrefetchRuns;
  for (size_t i = 0; i < outer.count; ++i, strided += outer.stride) {
    std::byte* at = strided;
    std::byte* ahead = strided + inner.stride * static_cast<ptrdiff_t>(kAhead);
    const size_t far = inner.count > kAhead ? inner.count - kAhead : 0;
    size_t j = 0;
    for (; j < far; ++j, at += inner.stride, ahead += inner.stride, dense += run) {
      __builtin_prefetch(ahead, pack ? 0 : 1);
      pack ? Run::Copy(at, dense, run) : Run::Copy(dense, at, run);
    }
    ahead = strided + outer.stride;
    for (; j < inner.count; ++j, at += inner.stride, ahead += inner.stride, dense += run) {
      if (i + 1 < outer.count) __builtin_prefetch(ahead, pack ? 0 : 1);
      pack ? Run::Copy(at, dense, run) : Run::Copy(dense, at, run);
    }
  }
}

using Copy2Function = void (*)(const StrideLevel&, const StrideLevel&, size_t, std::byte*, std::byte*);

template <typename Run, bool pack>
void Plain(const StrideLevel& outer, const StrideLevel& inner, size_t run, std::byte* strided,
           std::byte* dense) {
  if constexpr (!std::is_same_v<Run, AnyRun>) run = sizeof(std::byte[Run::kBytes]);
  Copy2<Run, pack>(outer, inner, run, strided, dense);
}

template <size_t bytes>
struct Fixed : FixedRun<bytes> {
  static constexpr size_t kBytes = bytes;
};

template <bool pack>
Copy2Function Choose(size_t run) {
  switch (run) {
    case 1:
      return Plain<Fixed<1>, pack>;
    case 2:
      return Plain<Fixed<2>, pack>;
    case 4:
      return Plain<Fixed<4>, pack>;
    case 8:
      return Plain<Fixed<8>, pack>;
    case 12:
      return Plain<Fixed<12>, pack>;
    case 16:
      return Plain<Fixed<16>, pack>;
    case 24:
      return Plain<Fixed<24>, pack>;
    case 32:
      return Plain<Fixed<32>, pack>;
    case 64:
      return Plain<Fixed<64>, pack>;
    default:
      return Plain<AnyRun, pack>;
  }
}

// The levels outside of the two innermost ones, by counting.
template <bool pack>
void Copy(const StridedBlock& block, std::byte* strided, std::byte* dense) {
  const Copy2Function copy = Choose<pack>(block.run);
  const size_t depth = block.levels.size();
  const StrideLevel once;
  const StrideLevel& inner = depth > 0 ? block.levels[depth - 1] : once;
  const StrideLevel& outer = depth > 1 ? block.levels[depth - 2] : once;
  const size_t step = outer.count * inner.count * block.run;
  const size_t rest = depth > 2 ? depth - 2 : 0;
  size_t turn[policy::kDatatypeLevels] = {};
  strided += block.offset;
  for (;;) {
    copy(outer, inner, block.run, strided, dense);
    dense += step;
    size_t level = rest;
    for (; level > 0; --level) {
      const StrideLevel& at = block.levels[level - 1];
      strided += at.stride;
      if (++turn[level - 1] < at.count) break;
      strided -= at.stride * static_cast<ptrdiff_t>(at.count);
      turn[level - 1] = 0;
    }
    if (level == 0) return;
  }
}

}  // namespace

void PackBlock(const StridedBlock& block, const std::byte* buffer, std::byte* packed) {
  Copy<true>(block, const_cast<std::byte*>(buffer), packed);
}

void UnpackBlock(const StridedBlock& block, const std::byte* packed, std::byte* buffer) {
  Copy<false>(block, buffer, const_cast<std::byte*>(packed));
}

}  // namespace cohort::comm
