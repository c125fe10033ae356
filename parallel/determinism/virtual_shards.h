// Which samples a rank computes together: in deterministic mode in portions that do not depend on the number
// of ranks. Pure arithmetic.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/config/policy.h"

namespace cohort::parallel {

struct IndexRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const IndexRange&) const = default;
};

// Of n things in `parts` runs of about equal size.
inline IndexRange PartOf(int64_t n, int64_t part, int64_t parts) {
  return {n * part / parts, n * (part + 1) / parts};
}

// A rank's share of a batch in fast mode: a run of samples in micro-batches of its own, as many on every
// rank, some perhaps of no samples. micro_batch 0: the whole share.
inline std::vector<IndexRange> MicroBatchesOf(int64_t samples, int rank, int ranks, int64_t micro_batch) {
  const IndexRange mine = PartOf(samples, rank, ranks);
  const int64_t largest = (samples + ranks - 1) / ranks;
  const int64_t together = std::max<int64_t>(1, micro_batch > 0 ? micro_batch : largest);
  std::vector<IndexRange> micro_batches;
  for (int64_t round = 0; round < (largest + together - 1) / together; ++round) {
    const int64_t begin = std::min(mine.end, mine.begin + round * together);
    micro_batches.push_back({begin, std::min(mine.end, begin + together)});
  }
  return micro_batches;
}

// A batch cut into V runs of samples, the virtual shards, each computed in the same micro-batches wherever
// that is. A rank computes a run of virtual shards, perhaps none.
struct VirtualShards {
  int64_t samples = 1;
  int shards = 1;                       // V <= samples
  int64_t micro_batch = 1;              // samples of a micro-batch, except the last ones of a shard
  int64_t micro_batches_per_shard = 1;  // those of the largest; a smaller shard's last one may be empty

  // shards 0: kDefault; never more than samples. micro_batch 0: a whole shard.
  static constexpr int kDefault = runtime::config_policy::kVirtualShards;
  static VirtualShards Of(int64_t samples, int64_t shards, int64_t micro_batch) {
    VirtualShards cut{.samples = samples};
    cut.shards = static_cast<int>(std::max<int64_t>(1, std::min(samples, shards > 0 ? shards : kDefault)));
    const int64_t largest = (samples + cut.shards - 1) / cut.shards;
    cut.micro_batch = micro_batch > 0 ? std::min(micro_batch, largest) : largest;
    cut.micro_batches_per_shard = (largest + cut.micro_batch - 1) / cut.micro_batch;
    return cut;
  }

  // Held-out samples, in portions of the same size.
  VirtualShards OfHeldOut(int64_t held_out) const {
    return Of(held_out, (held_out + micro_batch - 1) / micro_batch, 0);
  }

  IndexRange ShardsOf(int rank, int ranks) const { return PartOf(shards, rank, ranks); }
  // Micro-batches of every rank: of the one with most shards.
  int64_t RoundsOn(int ranks) const { return (shards + ranks - 1) / ranks * micro_batches_per_shard; }
  // The shard that a rank computes in a round; -1: none.
  int ShardIn(int64_t round, int rank, int ranks) const {
    const IndexRange run = ShardsOf(rank, ranks);
    const int64_t shard = run.begin + round / micro_batches_per_shard;
    return shard < run.end ? static_cast<int>(shard) : -1;
  }
  // The samples of that micro-batch, perhaps none.
  IndexRange SamplesIn(int64_t round, int rank, int ranks) const {
    const int shard = ShardIn(round, rank, ranks);
    if (shard < 0) return {};
    const IndexRange all = PartOf(samples, shard, shards);
    const int64_t begin = std::min(all.end, all.begin + round % micro_batches_per_shard * micro_batch);
    return {begin, std::min(all.end, begin + micro_batch)};
  }
  std::vector<IndexRange> MicroBatchesOf(int rank, int ranks) const {
    std::vector<IndexRange> micro_batches;
    for (int64_t round = 0; round < RoundsOn(ranks); ++round) {
      micro_batches.push_back(SamplesIn(round, rank, ranks));
    }
    return micro_batches;
  }
};

}  // namespace cohort::parallel
