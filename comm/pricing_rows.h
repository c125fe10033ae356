// How each algorithm is priced: a function each, named in the table of pricing.cc.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <numeric>

#include "comm/algorithms/policy.h"
#include "comm/operation.h"
#include "comm/pricing_clock.h"

namespace cohort::comm::pricing {

// A call, and what happens in it.
struct Pricer {
  Clock& clock;
  Collective call;  // of rank 0
  size_t count;     // in all
  size_t piece;     // elements; 0: do not cut

  int size() const { return clock.size(); }
  const HostMap& hosts() const { return *call.hosts; }
  size_t Pieces(size_t whole) const {
    if (piece == 0 || whole <= piece) return 1;
    return std::min(policy::kMaxPieces, (whole + piece - 1) / piece);
  }
  Team Everyone() const {
    Team team(size());
    std::iota(team.begin(), team.end(), 0);
    return team;
  }
  // The ranks of every host.
  Teams Hosts() const {
    Teams teams;
    for (int host = 0; host < hosts().num_hosts(); ++host) {
      const auto ranks = hosts().ranks_on(host);
      teams.emplace_back(ranks.begin(), ranks.end());
    }
    return teams;
  }
  int Leader(int host) const { return hosts().ranks_on(host)[0]; }
};

// Calls visit(parent, child, subtree) of the binomial tree, parents first, the largest subtree first.
template <typename Visit>
void ForTree(int size, const Visit& visit) {
  for (int bit = static_cast<int>(std::bit_ceil(static_cast<unsigned>(size))) / 2; bit > 0; bit /= 2) {
    for (int parent = 0; parent + bit < size; parent += 2 * bit) visit(parent, parent + bit, bit);
  }
}
// The same, children first.
template <typename Visit>
void ForTreeUp(int size, const Visit& visit) {
  for (int bit = 1; bit < size; bit *= 2) {
    for (int parent = 0; parent + bit < size; parent += 2 * bit) visit(parent, parent + bit, bit);
  }
}

// Down the tree, among `ranks`; what a child gets is size_of(child, subtree).
template <typename SizeOf>
void Down(Pricer& p, const Team& ranks, const SizeOf& size_of, Times* times) {
  ForTree(static_cast<int>(ranks.size()), [&](int parent, int child, int bit) {
    const int from = ranks[parent], to = ranks[child];
    (*times)[to] = p.clock.Message(from, to, size_of(child, bit), (*times)[from]);
  });
}
// Up; a sum waits for the one before.
template <typename SizeOf>
void Up(Pricer& p, const Team& ranks, bool sums, const SizeOf& size_of, Times* times) {
  ForTreeUp(static_cast<int>(ranks.size()), [&](int parent, int child, int bit) {
    const int from = ranks[child], to = ranks[parent];
    const Moment came =
        p.clock.Message(from, to, size_of(child, bit), (*times)[from], sums ? (*times)[to] : Moment{});
    (*times)[to] = p.clock.Later((*times)[to], came);
  });
}

// pricing_flat.cc: all ranks in one team.
void RingOnce(Pricer& p);
void RingTwice(Pricer& p);
void Halving(Pricer& p);
void HalvingThenDoubling(Pricer& p);
void DoublingSum(Pricer& p);
void AllPair(Pricer& p);
void PairwiseOwners(Pricer& p);
void Exchange(Pricer& p);
void PairwiseOwn(Pricer& p);
void Direct(Pricer& p);
void Dissemination(Pricer& p);
void AllGatherRecursiveDoubling(Pricer& p);
void BruckAllToAll(Pricer& p);
void TreeDown(Pricer& p);
void TreeUp(Pricer& p);
void TreeGather(Pricer& p);
void TreeScatter(Pricer& p);
void ScatterAllGather(Pricer& p);
void HalvingGather(Pricer& p);
void ToRoot(Pricer& p);
void FromRoot(Pricer& p);
void Chain(Pricer& p);
void DoubleTree(Pricer& p);

// pricing_hosts.cc, pricing_leaders.cc: by hosts.
void HierarchicalBroadcast(Pricer& p);
void HierarchicalReduce(Pricer& p);
void HierarchicalGatherOrScatter(Pricer& p);
void Hierarchical(Pricer& p);
void HierarchicalDirect(Pricer& p);
void Nvrar(Pricer& p);
void HoRing(Pricer& p);
void HierarchicalReduceScatter(Pricer& p);
void HierarchicalDirectReduceScatter(Pricer& p);
void HierarchicalAllGather(Pricer& p);
void HierarchicalDirectAllGather(Pricer& p);
void HierarchicalAllToAll(Pricer& p);
void LeadersReduceScatter(Pricer& p);
void LeadersAllGather(Pricer& p);
void LeadersAllToAll(Pricer& p);

}  // namespace cohort::comm::pricing
