// The loop over two levels of runs, for every kind of run and instruction set: included where it is compiled for one.
#pragma once

#include <cstddef>
#include <cstring>

#include "comm/datatype/datatype.h"
#include "comm/datatype/policy.h"
#include "comm/processor.h"

namespace cohort::comm {
namespace {  // each instruction set has its own

constexpr size_t kLine = 64;
constexpr size_t kGroup = 8;  // runs that are moved without a branch in between

COHORT_INLINE size_t Smaller(size_t a, size_t b) { return a < b ? a : b; }

template <bool pack>
COHORT_INLINE void Move(std::byte* strided, std::byte* dense, size_t bytes) {
  pack ? std::memcpy(dense, strided, bytes) : std::memcpy(strided, dense, bytes);
}

// Asks for the lines of the group that is moved kDatatypePrefetchRuns later: in this row, or in the next.
COHORT_INLINE void AskAhead(std::byte* strided, ptrdiff_t stride) {
  for (size_t i = 0; i < kGroup; ++i, strided += stride) __builtin_prefetch(strided, 0, 2);
}

template <typename Run, bool pack, bool ahead>
COHORT_INLINE void MoveRows(const StrideLevel& outer, const StrideLevel& inner, size_t run,
                            std::byte* strided, std::byte* dense) {
  constexpr size_t kAhead = policy::kDatatypePrefetchRuns;
  for (size_t i = 0; i < outer.count; ++i, strided += outer.stride) {
    std::byte* at = strided;
    std::byte* next = i + 1 < outer.count ? strided + outer.stride : strided;
    size_t j = 0;
    for (; j + kGroup <= inner.count; j += kGroup) {
      if constexpr (ahead) {
        const bool here = j + kAhead < inner.count;
        const size_t to = here ? j + kAhead : Smaller(j + kAhead - inner.count, inner.count - kGroup);
        AskAhead((here ? strided : next) + inner.stride * static_cast<ptrdiff_t>(to), inner.stride);
      }
      Run::template Group<pack>(at, inner.stride, dense, run);
      at += inner.stride * static_cast<ptrdiff_t>(kGroup);
      dense += run * kGroup;
    }
    for (; j < inner.count; ++j, at += inner.stride, dense += run) Run::template One<pack>(at, dense, run);
  }
}

}  // namespace
}  // namespace cohort::comm
