#include "runtime/data/permutation.h"

#include <bit>

#include "comm/check.h"
#include "runtime/data/policy.h"

namespace cohort::runtime {

RandomPermutation::RandomPermutation(uint64_t size, uint64_t seed, RandomPurpose purpose, uint64_t stream)
    : size_(size), seed_(seed), stream_(stream), purpose_(purpose) {
  COHORT_CHECK(size > 0 && size < uint64_t{1} << 62, "a permutation of %lu elements",
               static_cast<unsigned long>(size));
  half_bits_ = (std::bit_width(size - 1) + 1) / 2;
  if (half_bits_ == 0) half_bits_ = 1;
}

uint64_t RandomPermutation::operator()(uint64_t index) const {
  COHORT_CHECK(index < size_, "element %lu of %lu", static_cast<unsigned long>(index),
               static_cast<unsigned long>(size_));
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  do {
    uint64_t left = index >> half_bits_, right = index & mask;
    for (int round = 0; round < data_policy::kFeistelRounds; ++round) {
      // The round is in the high bits of the counter's index, which a half (at most 31 bits) leaves free.
      const PhiloxCounter bits =
          RandomBits(seed_, purpose_, stream_, static_cast<uint64_t>(round) << 32 | right);
      const uint64_t mixed = left ^ (bits[0] & mask);
      left = right;
      right = mixed;
    }
    index = left << half_bits_ | right;
  } while (index >= size_);
  return index;
}

}  // namespace cohort::runtime
