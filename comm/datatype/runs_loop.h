// The loop over two levels of runs, for every kind of run and instruction set: included where it is compiled for one.
#pragma once

#include <cstddef>
#include <cstring>

#include "comm/datatype/datatype.h"
#include "comm/datatype/policy.h"
#include "comm/datatype/runs.h"
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

// Runs of at least a vector (its kBytes, and Copy, which takes any address), in vectors, the last of which may overlap
// the one before.
template <typename Vector>
struct VectorRun {
  template <bool pack>
  static COHORT_INLINE void One(std::byte* strided, std::byte* dense, size_t run) {
    constexpr size_t kBytes = Vector::kBytes;
    std::byte* to = pack ? dense : strided;
    const std::byte* from = pack ? strided : dense;
    size_t at = 0;
    for (; at + 4 * kBytes <= run; at += 4 * kBytes) {
      Vector::Copy(to + at, from + at);
      Vector::Copy(to + at + kBytes, from + at + kBytes);
      Vector::Copy(to + at + 2 * kBytes, from + at + 2 * kBytes);
      Vector::Copy(to + at + 3 * kBytes, from + at + 3 * kBytes);
    }
    for (; at + kBytes <= run; at += kBytes) Vector::Copy(to + at, from + at);
    if (at < run) Vector::Copy(to + run - kBytes, from + run - kBytes);
  }
  template <bool pack>
  static COHORT_INLINE void Group(std::byte* strided, ptrdiff_t stride, std::byte* dense, size_t run) {
    for (size_t i = 0; i < kGroup; ++i, strided += stride, dense += run) One<pack>(strided, dense, run);
  }
};

template <typename Run, bool pack, bool ahead, size_t fixed>
void MoveAll(const StrideLevel& outer, const StrideLevel& inner, size_t run, std::byte* strided,
             std::byte* dense) {
  MoveRows<Run, pack, ahead>(outer, inner, fixed > 0 ? fixed : run, strided, dense);
}

// The loop for a kind of run; `fixed`: of a length that is known when compiled.
template <typename Run, size_t fixed = 0>
MoveRuns Of(bool pack, bool ahead) {
  if (pack) return ahead ? MoveAll<Run, true, true, fixed> : MoveAll<Run, true, false, fixed>;
  return ahead ? MoveAll<Run, false, true, fixed> : MoveAll<Run, false, false, fixed>;
}

// Rows of at least a vector; those of cubes whose side is a power of two without a loop.
template <typename Vector>
MoveRuns OfVectors(bool pack, size_t run, bool ahead) {
  switch (run) {
    case 32:
      if constexpr (Vector::kBytes <= 32) return Of<VectorRun<Vector>, 32>(pack, ahead);
      break;
    case 64:
      return Of<VectorRun<Vector>, 64>(pack, ahead);
    case 128:
      return Of<VectorRun<Vector>, 128>(pack, ahead);
    case 256:
      return Of<VectorRun<Vector>, 256>(pack, ahead);
    default:
      break;
  }
  return Of<VectorRun<Vector>>(pack, ahead);
}

}  // namespace
}  // namespace cohort::comm
