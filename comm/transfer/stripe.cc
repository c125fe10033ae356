#include "comm/transfer/stripe.h"

#include <algorithm>

namespace cohort::comm::transfer {

std::vector<Shard> Stripe(uint64_t bytes, const std::vector<int>& rails, uint64_t min_shard_bytes,
                          uint64_t turn) {
  constexpr uint64_t kAlignment = 64;
  const uint64_t most = std::max<uint64_t>(bytes / std::max<uint64_t>(min_shard_bytes, 1), 1);
  const uint64_t count = std::min<uint64_t>(rails.size(), most);
  const auto boundary = [&](uint64_t shard) {
    if (shard == count) return bytes;
    // Without overflow for any number of bytes.
    return (bytes / count * shard + bytes % count * shard / count) / kAlignment * kAlignment;
  };
  std::vector<Shard> shards;
  for (uint64_t i = 0; i < count; ++i) {
    const Shard shard{rails[(turn + i) % rails.size()], boundary(i), boundary(i + 1)};
    if (shard.begin < shard.end || count == 1) shards.push_back(shard);
  }
  return shards;
}

}  // namespace cohort::comm::transfer
