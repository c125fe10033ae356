// Rotary positions (Su et al., 2021): dimension i of the first half turns with dimension i of the second.
#include "runtime/ops/check_shapes.h"
#include "runtime/ops/reference/reference_ops.h"

namespace cohort::runtime {

void ReferenceOps::Rope(const Tensor& x, const Tensor& positions, const Tensor& table, bool inverse) {
  const int64_t tokens = x.dim(0), heads = x.dim(1), c = x.dim(2), half = c / 2;
  COHORT_CHECK(c % 2 == 0, "Rope of %s: an odd head width", x.DebugString().c_str());
  CheckShape("Rope", positions, {tokens});
  CheckShape("Rope", table, {table.dim(0), c});
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t position = positions.data<int32_t>()[t];
    COHORT_CHECK(position >= 0 && position < table.dim(0), "Rope: position %ld of %s",
                 static_cast<long>(position), table.DebugString().c_str());
    const double* cosines = table.data<double>() + position * c;
    const double* sines = cosines + half;
    for (int64_t h = 0; h < heads; ++h) {
      double* head = x.data<double>() + (t * heads + h) * c;
      for (int64_t i = 0; i < half; ++i) {
        const double first = head[i], second = head[half + i], sine = inverse ? -sines[i] : sines[i];
        head[i] = first * cosines[i] - second * sine;
        head[half + i] = second * cosines[i] + first * sine;
      }
    }
  }
}

}  // namespace cohort::runtime
