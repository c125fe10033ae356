// Kernels of AVX-512, chosen at run time.
#include "comm/datatype/runs.h"

#ifdef __x86_64__

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own AVX-512 headers
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
#include "comm/datatype/policy.h"
#include "comm/datatype/runs_loop.h"

namespace cohort::comm {
namespace {

// Eight runs of 4 or 8 bytes by one gather, or one scatter, which writes in order where runs overlap.
template <size_t bytes>
struct WordRun {
  template <bool pack>
  static COHORT_INLINE void One(std::byte* strided, std::byte* dense, size_t) {
    Move<pack>(strided, dense, bytes);
  }
  template <bool pack>
  static COHORT_INLINE void Group(std::byte* strided, ptrdiff_t stride, std::byte* dense, size_t) {
    const __m512i offsets =
        _mm512_mullo_epi64(_mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi64(stride));
    if constexpr (bytes == 8) {
      pack ? _mm512_storeu_si512(dense, _mm512_i64gather_epi64(offsets, strided, 1))
           : _mm512_i64scatter_epi64(strided, offsets, _mm512_loadu_si512(dense), 1);
    } else {
      auto* words = reinterpret_cast<__m256i*>(dense);
      pack ? _mm256_storeu_si256(words, _mm512_i64gather_epi32(offsets, strided, 1))
           : _mm512_i64scatter_epi32(strided, offsets, _mm256_loadu_si256(words), 1);
    }
  }
};

struct Vector512 {
  static constexpr size_t kBytes = 64;
  static COHORT_INLINE void Copy(std::byte* to, const std::byte* from) {
    _mm512_storeu_si512(to, _mm512_loadu_si512(from));
  }
};

}  // namespace

MoveRuns ChooseAvx512(bool pack, size_t run, bool near, bool ahead) {
  if (run >= Vector512::kBytes && run < policy::kDatatypeLongRun)
    return OfVectors<Vector512>(pack, run, false);
  if (near) return nullptr;
  if (run == 4) return Of<WordRun<4>>(pack, ahead);
  if (run == 8) return Of<WordRun<8>>(pack, ahead);
  return nullptr;
}

}  // namespace cohort::comm
#pragma GCC pop_options

#else

namespace cohort::comm {

MoveRuns ChooseAvx512(bool, size_t, bool, bool) { return nullptr; }

}  // namespace cohort::comm

#endif  // __x86_64__
