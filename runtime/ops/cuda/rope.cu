// Rotary positions (Su et al., 2021): dimension i of the first half of a head turns with dimension i of the second. A
// thread takes eight such pairs of a head, in place.
#include "runtime/ops/cuda/for_groups.h"
#include "runtime/ops/cuda/layers.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

template <typename T>
struct RopeBody {
  T* x;
  const int32_t* positions;
  const float* table;
  int64_t max_position, heads, half, groups;  // groups of eight in half a head
  float sign;
  bool wide;
  // unit = (token, head, group)
  __device__ void operator()(int64_t unit) const {
    const int64_t head = unit / groups, i = unit % groups * kGroup;
    const int32_t position = positions[head / heads];
    CheckOnDevice(position >= 0 && position < max_position);
    const float* cosines = table + position * 2 * half + i;
    T* first = x + head * 2 * half + i;
    const int count = static_cast<int>(half - i < kGroup ? half - i : kGroup);
    float a[kGroup], b[kGroup], c[kGroup], s[kGroup];
    Load8(first, wide, count, a);
    Load8(first + half, wide, count, b);
    Load8(cosines, wide, count, c);
    Load8(cosines + half, wide, count, s);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) {
      const float x0 = a[j], x1 = b[j], sine = s[j] * sign;
      a[j] = x0 * c[j] - x1 * sine;
      b[j] = x1 * c[j] + x0 * sine;
    }
    Store8(first, wide, count, a);
    Store8(first + half, wide, count, b);
  }
};

}  // namespace

template <typename T>
void RopeRows(const Queue& queue, T* x, const int32_t* positions, const float* table, int64_t max_position,
              float sign, int64_t tokens, int64_t heads, int64_t width) {
  const int64_t half = width / 2, groups = CeilDiv(half, kGroup);
  if (tokens == 0 || heads == 0 || half == 0) return;
  LaunchEach(
      queue,
      RopeBody<T>{x, positions, table, max_position, heads, half, groups, sign, WideGroups(half, x, table)},
      tokens * heads * groups);
}
template void RopeRows(const Queue&, float*, const int32_t*, const float*, int64_t, float, int64_t, int64_t,
                       int64_t);
template void RopeRows(const Queue&, Bf16*, const int32_t*, const float*, int64_t, float, int64_t, int64_t,
                       int64_t);

}  // namespace cohort::runtime::COHORT_CUDA
