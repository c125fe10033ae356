// Random normal numbers: those of runtime/ops/normal.h. Philox gives the same bits; Box and Muller's functions are
// CUDA's in double precision (each within 2 units of the last of 53 bits), so that after rounding to 24 bits or fewer
// about one number in 10^8 differs from the CPU's, in its last bit.
#include "comm/philox.h"
#include "runtime/ops/cuda/elementwise.h"
#include "runtime/ops/cuda/for_groups.h"
#include "runtime/random/philox.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

// A block of four numbers a thread. `first` is the stream's index of x[0]; n elements.
struct NormalBody {
  void* x;
  FloatType type;
  int64_t n;
  uint64_t seed, first;
  uint32_t purpose;
  double stddev;
  __device__ void operator()(int64_t block) const {
    const uint64_t index = first / 4 + static_cast<uint64_t>(block);
    const PhiloxCounter bits = RandomBits(seed, RandomPurpose::kWeightInit, purpose, index);
    for (int pair = 0; pair < 2; ++pair) {
      // The formulas of NormalPair, whose std::sqrt, std::log and so on device code does not have under these names.
      const double radius = sqrt(-2.0 * log((static_cast<double>(bits[2 * pair]) + 1.0) * 0x1p-32));
      const double angle = 2.0 * std::numbers::pi * static_cast<double>(bits[2 * pair + 1]) * 0x1p-32;
      const double numbers[2] = {radius * cos(angle), radius * sin(angle)};
      for (int which = 0; which < 2; ++which) {
        const int64_t i = static_cast<int64_t>(index * 4 + 2 * pair + which - first);
        if (i >= 0 && i < n) StoreAny(x, type, i, stddev * numbers[which]);
      }
    }
  }
};

}  // namespace

void NormalElements(const Queue& queue, void* x, FloatType type, int64_t n, uint64_t seed, uint32_t purpose,
                    uint64_t first_index, double stddev) {
  if (n == 0) return;
  const uint64_t last = first_index + static_cast<uint64_t>(n) - 1;
  LaunchEach(queue, NormalBody{x, type, n, seed, first_index, purpose, stddev},
             static_cast<int64_t>(last / 4 - first_index / 4 + 1));
}

}  // namespace cohort::runtime::COHORT_CUDA
