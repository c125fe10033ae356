// Kernels of AVX2, chosen at run time.
#include "comm/datatype/runs.h"

#ifdef __x86_64__

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2")
#include "comm/datatype/policy.h"
#include "comm/datatype/runs_loop.h"

namespace cohort::comm {
namespace {

struct Vector256 {
  static constexpr size_t kBytes = 32;
  static COHORT_INLINE void Copy(std::byte* to, const std::byte* from) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes);
  }
};

}  // namespace

MoveRuns ChooseAvx2(bool pack, size_t run, bool ahead) {
  if (run < Vector256::kBytes || run >= policy::kDatatypeLongRun) return nullptr;
  return OfVectors<Vector256>(pack, run, ahead && run < kLine);
}

}  // namespace cohort::comm
#pragma GCC pop_options

#else

namespace cohort::comm {

MoveRuns ChooseAvx2(bool, size_t, bool) { return nullptr; }

}  // namespace cohort::comm

#endif  // __x86_64__
