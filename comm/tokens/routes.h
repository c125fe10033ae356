// Where tokens go, as data: what one rank knows of a routing, and the schedules that follow from it.
//
// A token is a row of fixed width. It has a list of destination ranks, and crosses to each host that has some of them
// once, to the rank of the same place there; that rank forwards it inside the host to every destination on it
// ("dispatch"; DeepEP, Zhao et al., 2025). What the destinations make of their rows comes back the other way: the
// forwarder sums what the ranks of its host have for a token, and one row a host goes back to the token's rank
// ("combine").
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "comm/host_map.h"
#include "comm/schedule.h"

namespace cohort::comm {

// Lists of ranks, one after the other: a list for each token.
class RankLists {
 public:
  size_t size() const { return begins_.size() - 1; }
  absl::Span<const int32_t> operator[](size_t list) const {
    return absl::MakeConstSpan(ranks_).subspan(begins_[list], begins_[list + 1] - begins_[list]);
  }
  void Add(absl::Span<const int32_t> ranks) {
    ranks_.insert(ranks_.end(), ranks.begin(), ranks.end());
    begins_.push_back(ranks_.size());
  }
  friend bool operator==(const RankLists&, const RankLists&) = default;

 private:
  std::vector<size_t> begins_ = {0};
  std::vector<int32_t> ranks_;
};

// What one rank knows of a routing: enough for its part. Lists are ascending, without repetitions.
struct TokenRoutes {
  int rank = 0;
  std::shared_ptr<const HostMap> hosts;
  // Of each token of this rank: the ranks it goes to; none is legal.
  RankLists own;
  // By source: of each token of that rank, on another host, which comes through this one, in the source's order: its
  // destinations on this host. Empty for others.
  std::vector<RankLists> passing;
  // By source: the tokens of that rank which come to this one.
  std::vector<size_t> received;

  size_t num_received() const;
  // Rows that this rank sends to other hosts in a dispatch.
  size_t num_crossing() const;
};

// The rank of `host` through which tokens of rank `source`, which is on another host, come and go.
int Forwarder(const HostMap& hosts, int source, int host);
// What the forwarder on `host` must know of a rank's tokens: the destinations on that host of those that have some.
RankLists ListsOn(const RankLists& own, const HostMap& hosts, int host);

// Rows of the input, in the order of this rank's tokens, become rows of the outputs of all their destinations: there
// they lie by source, and for each source in the order of its tokens. `width`: elements of a row.
Schedule DispatchTokens(const TokenRoutes& routes, size_t width);
// The other way: a rank's input is laid out as its output of the dispatch, and row t of the output becomes the sum of
// what the destinations of token t have for it, always in the same order: those on the own host, then other hosts. Rows
// of tokens without destinations are not written.
Schedule CombineTokens(const TokenRoutes& routes, size_t width);

}  // namespace cohort::comm
