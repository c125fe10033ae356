// Reshard plans: what is copied from where to where so that ranks that hold one layout hold another. Pure values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "parallel/reshard/layout.h"

namespace cohort::parallel {

// Block i < blocks, `count` elements: from element from + i * from_stride of old piece `from_piece` of the source to
// element to + i * to_stride of new piece `to_piece` of the destination.
struct PieceCopy {
  int source = 0, destination = 0;
  int from_piece = 0, to_piece = 0;  // indices in the ranks' lists
  int64_t from = 0, to = 0;
  int64_t count = 0;
  int64_t blocks = 1;
  int64_t from_stride = 0, to_stride = 0;

  // Within one rank: nothing travels.
  bool stays() const { return source == destination; }
  int64_t elements() const { return count * blocks; }
  bool operator==(const PieceCopy&) const = default;
};

// Copies in the order of (source, destination, to_piece); as few as they can be: runs that lie together are one, and
// runs that repeat at equal distances are blocks of one.
struct ReshardPlan {
  std::vector<PieceCopy> copies;
};

struct ReshardOptions {
  // The host of each rank (any numbering); empty: all on one.
  std::vector<int> host_of = {};
  // Ranks that are lost: they can be no sources, and hold nothing afterwards.
  std::vector<int> lost = {};
  // What errors call the lost ranks, in their order; empty: by their numbers.
  std::vector<int> lost_names = {};
  // Where several ranks hold the same bytes, a source is asked for so many before the choice is made again.
  int64_t turn_bytes = int64_t{4} << 20;
};

// What a rank has already stays there. Everything else comes from one rank that has it: of the destination's host where
// there is one, and of those one that sends least so far. INVALID_ARGUMENT where the layouts do not fit together or a
// lost rank is to hold something; NOT_FOUND where elements are on no rank that is left: names them and the ranks that
// had some of the tensor (a checkpoint has them still).
absl::StatusOr<ReshardPlan> PlanReshard(const Layout& before, const Layout& after,
                                        const ReshardOptions& options);

// Whether every byte of every new piece arrives exactly once, from where it was, and none travels that was there
// already. INTERNAL says which copy or piece is wrong.
absl::Status CheckReshard(const Layout& before, const Layout& after, const ReshardOptions& options,
                          const ReshardPlan& plan);

struct ReshardTotals {
  int64_t total = 0;         // bytes of the new layout, all ranks
  int64_t stay = 0;          // of them where they were
  int64_t within_hosts = 0;  // that travel
  int64_t between_hosts = 0;
  int64_t most_sent = 0, most_received = 0;  // of a rank
  int most_sent_rank = 0, most_received_rank = 0;
  int64_t host_bytes = 0;  // between hosts, the most that one host sends or receives
  int64_t messages = 0;    // copies that travel
  int64_t blocks = 0;      // of them

  int64_t moved() const { return within_hosts + between_hosts; }
};
ReshardTotals TotalsOf(const Layout& after, const ReshardOptions& options, const ReshardPlan& plan);

// Bytes a second: of a rank within its host, and of a host to the others, each way.
struct ReshardRates {
  double rank_bytes_per_second = 0, host_bytes_per_second = 0;
};
// No schedule is faster: the busiest rank's bytes and the busiest host's, at full rate.
double LeastSeconds(const ReshardTotals& totals, const ReshardRates& rates);
// The totals in a few lines of words; with rates (not null) also that time.
std::string DebugString(const ReshardTotals& totals, const ReshardRates* rates = nullptr);

}  // namespace cohort::parallel
