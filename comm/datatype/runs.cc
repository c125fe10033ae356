// What bounds these loops is cache lines, not instructions: a run of 8 bytes costs its line of 64. Where the lines fit
// the first cache, eight loads and stores in a row; where not, AVX-512 gathers and scatters for runs of one word, which
// have more lines under way than single loads have, and do not wake the processor's own prefetch, which fetches what
// nobody asked for; where they fit no cache, lines are asked for ahead, into the second cache, since those that are a
// power of two apart share few places in the first. Dense sides are written with plain stores: who packs
// sends, so the bytes are read again at once.
#include "comm/datatype/runs.h"

#include "comm/datatype/policy.h"
#include "comm/datatype/runs_loop.h"
#include "comm/processor.h"

namespace cohort::comm {
namespace {

// A length known when compiled.
template <size_t bytes>
struct FixedRun {
  template <bool pack>
  static COHORT_INLINE void One(std::byte* strided, std::byte* dense, size_t) {
    Move<pack>(strided, dense, bytes);
  }
  template <bool pack>
  static COHORT_INLINE void Group(std::byte* strided, ptrdiff_t stride, std::byte* dense, size_t) {
    Move<pack>(strided, dense, bytes);
    Move<pack>(strided + stride, dense + bytes, bytes);
    Move<pack>(strided + 2 * stride, dense + 2 * bytes, bytes);
    Move<pack>(strided + 3 * stride, dense + 3 * bytes, bytes);
    Move<pack>(strided + 4 * stride, dense + 4 * bytes, bytes);
    Move<pack>(strided + 5 * stride, dense + 5 * bytes, bytes);
    Move<pack>(strided + 6 * stride, dense + 6 * bytes, bytes);
    Move<pack>(strided + 7 * stride, dense + 7 * bytes, bytes);
  }
};

// Pieces of a fixed size, the last of which may overlap the one before.
template <size_t piece>
struct PiecedRun {
  template <bool pack>
  static COHORT_INLINE void One(std::byte* strided, std::byte* dense, size_t run) {
    for (size_t at = 0; at + piece < run; at += piece) Move<pack>(strided + at, dense + at, piece);
    Move<pack>(strided + run - piece, dense + run - piece, piece);
  }
  template <bool pack>
  static COHORT_INLINE void Group(std::byte* strided, ptrdiff_t stride, std::byte* dense, size_t run) {
    for (size_t i = 0; i < kGroup; ++i, strided += stride, dense += run) One<pack>(strided, dense, run);
  }
};

struct LongRun {
  template <bool pack>
  static COHORT_INLINE void One(std::byte* strided, std::byte* dense, size_t run) {
    Move<pack>(strided, dense, run);
  }
  template <bool pack>
  static COHORT_INLINE void Group(std::byte* strided, ptrdiff_t stride, std::byte* dense, size_t run) {
    for (size_t i = 0; i < kGroup; ++i, strided += stride, dense += run) One<pack>(strided, dense, run);
  }
};

}  // namespace

MoveRuns ChooseMove(bool pack, size_t run, size_t num_runs) {
  constexpr size_t kMany = policy::kDatatypeFarBytes;  // far, however short or few they are
  const size_t lines = Smaller(run / kLine + 1, kMany) * Smaller(num_runs, kMany);  // at least
  const bool near = lines <= policy::kDatatypeNearBytes / kLine;
  const bool ahead = lines > policy::kDatatypeFarBytes / kLine;
  const ProcessorLevel level = GetProcessorLevel();
  MoveRuns wide = nullptr;
  if (level >= ProcessorLevel::kAvx512) wide = ChooseAvx512(pack, run, near, ahead);
  if (wide == nullptr && level >= ProcessorLevel::kAvx2) wide = ChooseAvx2(pack, run, ahead);
  if (wide != nullptr) return wide;
  switch (run) {
    case 1:
      return Of<FixedRun<1>, 1>(pack, ahead);
    case 2:
      return Of<FixedRun<2>, 2>(pack, ahead);
    case 3:
      return Of<PiecedRun<2>, 3>(pack, ahead);
    case 4:
      return Of<FixedRun<4>, 4>(pack, ahead);
    case 6:
      return Of<PiecedRun<4>, 6>(pack, ahead);
    case 8:
      return Of<FixedRun<8>, 8>(pack, ahead);
    case 12:
      return Of<PiecedRun<8>, 12>(pack, ahead);
    case 16:
      return Of<FixedRun<16>, 16>(pack, ahead);
    case 24:
      return Of<PiecedRun<16>, 24>(pack, ahead);
    case 32:
      return Of<FixedRun<32>, 32>(pack, ahead);
    case 40:
      return Of<PiecedRun<32>, 40>(pack, ahead);
    case 48:
      return Of<PiecedRun<32>, 48>(pack, ahead);
    default:
      break;
  }
  if (run >= policy::kDatatypeLongRun) return Of<LongRun>(pack, false);
  if (run >= 32) return Of<PiecedRun<32>>(pack, false);
  if (run >= 16) return Of<PiecedRun<16>>(pack, ahead);
  if (run >= 8) return Of<PiecedRun<8>>(pack, ahead);
  return Of<PiecedRun<4>>(pack, ahead);  // 5, 7
}

}  // namespace cohort::comm
