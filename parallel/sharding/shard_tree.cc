#include "parallel/sharding/shard_tree.h"

#include <algorithm>

#include "comm/check.h"

namespace cohort::parallel {
namespace {

// Of `elements` in `pieces` nearly equal ones. Products stay far below 2^63.
ElementRange PieceRange(int64_t elements, int pieces, int piece) {
  return {elements * piece / pieces, elements * (piece + 1) / pieces};
}

}  // namespace

ShardTree::ShardTree(std::vector<int> levels, int replicas) : chain_(std::move(levels)) {
  chain_.insert(chain_.end(), {1, replicas});
  std::sort(chain_.begin(), chain_.end());
  chain_.erase(std::unique(chain_.begin(), chain_.end()), chain_.end());
  COHORT_CHECK(chain_.front() == 1 && chain_.back() == replicas, "levels from %d to %d of %d replicas",
               chain_.front(), chain_.back(), replicas);
  for (size_t i = 1; i < chain_.size(); ++i) {
    COHORT_CHECK(chain_[i] % chain_[i - 1] == 0, "level %d of shards does not divide level %d", chain_[i - 1],
                 chain_[i]);
  }
}

int ShardTree::Piece(int level, int rank) const {
  int piece = 0;
  for (size_t i = 1; i < chain_.size() && chain_[i] <= level; ++i) {
    const int fan = chain_[i] / chain_[i - 1];
    piece = piece * fan + rank / chain_[i - 1] % fan;
  }
  COHORT_CHECK(std::binary_search(chain_.begin(), chain_.end(), level), "%d is no level of these shards",
               level);
  return piece;
}

ElementRange ShardTree::RangeOf(int level, int rank, int64_t elements) const {
  return PieceRange(elements, level, Piece(level, rank));
}

bool ShardTree::InOrder() const {
  for (int rank = 0; rank < replicas(); ++rank) {
    if (Piece(replicas(), rank) != rank) return false;
  }
  return true;
}

ShardTree::Place ShardTree::PlaceIn(int coarse, int fine, int rank) const {
  // Ranks with equal digits up to `coarse` have equal remainders by it.
  return {rank / fine * coarse + rank % coarse, Piece(fine, rank) % (fine / coarse)};
}

std::vector<size_t> ShardTree::Parts(int coarse, int fine, int rank, int64_t elements) const {
  const int parts = fine / coarse, first = Piece(coarse, rank) * parts;
  std::vector<size_t> sizes(parts);
  for (int i = 0; i < parts; ++i)
    sizes[i] = static_cast<size_t>(PieceRange(elements, fine, first + i).size());
  return sizes;
}

}  // namespace cohort::parallel
