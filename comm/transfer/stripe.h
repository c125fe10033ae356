// How a write is cut for several rails: plans as data.
#pragma once

#include <cstdint>
#include <vector>

namespace cohort::comm::transfer {

// A range of a write's bytes, for one rail.
struct Shard {
  int rail = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
  friend bool operator==(const Shard&, const Shard&) = default;
};

// Cuts `bytes` into as many equal shards as there are rails, or fewer where they would be smaller than
// `min_shard_bytes`; one, of no bytes, where there are none. Shards are in order, cover every byte once,
// begin at multiples of 64 and go to different rails, the first to rails[turn % size]: small writes take
// turns. `rails` is not empty.
std::vector<Shard> Stripe(uint64_t bytes, const std::vector<int>& rails, uint64_t min_shard_bytes,
                          uint64_t turn);

}  // namespace cohort::comm::transfer
