// A sum of squares without rounding: it does not depend on the order of its terms, nor on who adds up which
// of them.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "runtime/tensor.h"

namespace cohort::runtime {

// Squares of f32 numbers: an integer of 48 bits times a power of two that follows from the exponent, so there
// is one integer sum for each of the 256 exponents (a long accumulator: Kulisch, "Computer Arithmetic and
// Validity", 2013, 8). Room for 2^40 numbers.
class ExactSquares {
 public:
  // x kF32 of any shape and device.
  void Add(const Tensor& x);

  // The sums in words: those of several objects can be added up element by element, over ranks too (2^18 at
  // most).
  std::vector<int64_t> Words() const;
  // What words, added up, stand for; infinity where a number was not finite.
  static double Total(absl::Span<const int64_t> words);

 private:
  std::array<unsigned __int128, 256> sums_ = {};
};

}  // namespace cohort::runtime
