// A rank's subtree of the binomial tree of gathers and scatters, and where its parts lie.
#pragma once

#include <algorithm>
#include <bit>
#include <vector>

#include "comm/algorithms/flow.h"
#include "comm/algorithms/team.h"

namespace cohort::comm::algorithms {

// Places are ranks counted from the root. The subtree of a place are the `below` places from it on. On their way parts
// lie in the order of places; the root's buffer has them in the order of ranks, which is the same but for
// one cut between the last rank and rank 0.
class Subtree {
 public:
  explicit Subtree(const Collective& c) : size_(c.size), root_(c.root), offsets_(Offsets(c.counts)) {
    place_ = Modulo(c.rank - c.root, c.size);
    below_ = place_ == 0 ? static_cast<int>(std::bit_ceil(static_cast<unsigned>(size_))) : place_ & -place_;
    if (size_ == 1) below_ = 1;
  }

  int place() const { return place_; }
  int below() const { return below_; }
  bool leaf() const { return place_ != 0 && (below_ == 1 || place_ + 1 == size_); }
  int parent() const { return Modulo(root_ + place_ - below_, size_); }
  // The rank `distance` places on.
  int At(int distance) const { return Modulo(root_ + place_ + distance, size_); }
  size_t total() const { return offsets_.back(); }

  // Elements of `number` places from `first` on, as many as there are.
  size_t Count(int first, int number) const {
    size_t count = 0;
    for (const Slice& piece : Pieces(first, number)) count += piece.count;
    return count;
  }
  // Where the part of a place lies in the root's buffer.
  Slice Home(int place) const {
    const int rank = Modulo(root_ + place, size_);
    return {Buffer::kOutput, offsets_[rank], offsets_[rank + 1] - offsets_[rank]};
  }

  // Calls visit(slice) for the messages that the parts of these places travel as: one, or two where the last rank
  // and rank 0 are both among them. At the root, slices of the output; elsewhere of `work`, which holds the
  // subtree of this rank.
  template <typename Visit>
  void ForPieces(int first, int number, const Slice& work, const Visit& visit) const {
    size_t at = place_ == 0 ? 0 : Count(place_, first - place_);
    for (const Slice& piece : Pieces(first, number)) {
      visit(place_ == 0 ? piece : work.Part(at, piece.count));
      at += piece.count;
    }
  }

 private:
  std::vector<Slice> Pieces(int first, int number) const {
    const int end = std::min(first + number, size_), turn = size_ - root_;  // the place of rank 0
    std::vector<Slice> pieces;
    const auto add = [&](int from, int to) {
      if (from >= to) return;
      const size_t begin = Home(from).offset;
      pieces.push_back({Buffer::kOutput, begin, Home(to - 1).offset + Home(to - 1).count - begin});
    };
    add(first, std::min(end, turn));
    add(std::max(first, turn), end);
    return pieces;
  }

  int size_, root_, place_, below_;
  std::vector<size_t> offsets_;
};

}  // namespace cohort::comm::algorithms
