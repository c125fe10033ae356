// Pseudo-random permutations that need no memory: any element at any time.
#pragma once

#include <cstdint>

#include "runtime/random/philox.h"

namespace cohort::runtime {

// A permutation of [0, size) that is a pure function of (size, seed, purpose, stream): a Feistel
// network over the smallest power of four that holds the domain, with Philox as its round function,
// walked along its cycles until it falls into the domain (Black and Rogaway, "Ciphers with
// arbitrary finite domains", CT-RSA 2002).
class RandomPermutation {
 public:
  RandomPermutation(uint64_t size, uint64_t seed, RandomPurpose purpose, uint64_t stream);

  // The image of `index`, which must be below size. Constant time on average (under
  // four passes of the network).
  uint64_t operator()(uint64_t index) const;

 private:
  uint64_t size_, seed_, stream_;
  RandomPurpose purpose_;
  int half_bits_;
};

}  // namespace cohort::runtime
