// Double binary tree all-reduce (Sanders, Speck and Träff, 2009; used by NCCL): sums go up a tree and results
// down again, in pieces. One tree would leave the links of its leaves idle half of the time; of two trees, in
// which nobody but the roots is inside both, each carries half the data.
#include <vector>

#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {
namespace {

// Where a place of the first tree is. Place 0 is the root and has one child; below it, in-order numbers: odd
// places are leaves, a place whose lowest set bit is b has its children b/2 to both sides.
struct TreePlace {
  int parent = -1;
  std::vector<int> children;

  TreePlace(int place, int size) {
    const int bit = place & -place;
    if (place != 0) {
      const int up = place - bit;
      parent = (up | (bit << 1)) < size ? up | (bit << 1) : up;
      if (bit > 1) children.push_back(place - bit / 2);
    }
    // To the right: the largest subtree that is not beyond the last place.
    int right = place == 0 ? 1 : bit / 2;
    while (place == 0 && right * 2 < size) right *= 2;
    while (right > 0 && place + right >= size) right /= 2;
    if (right > 0) children.push_back(place + right);
  }
};

}  // namespace

Schedule DoubleTreeAllReduce(const Collective& c) {
  Flow flow(c.in_place ? 0 : c.count, c.count);
  if (c.size == 1) flow.Copy(Input(c, 0, c.count), {Buffer::kOutput, 0, c.count});
  // The second tree is the first one mirrored or, for odd sizes, shifted: there, odd ranks are inside.
  const auto second = [&](int rank) {
    return c.size % 2 == 0 ? c.size - 1 - rank : Modulo(rank + 1, c.size);
  };
  const auto back = [&](int place) {
    return c.size % 2 == 0 ? c.size - 1 - place : Modulo(place - 1, c.size);
  };
  const TreePlace trees[2] = {TreePlace(c.rank, c.size), TreePlace(second(c.rank), c.size)};
  const size_t pieces = NumPieces(c, Part(c.count, 2, 0).count);
  for (size_t piece = 0; piece < pieces && c.size > 1; ++piece) {
    for (int tree = 0; tree < 2; ++tree) {
      const auto rank_at = [&](int place) { return tree == 0 ? place : back(place); };
      const Range half = Part(c.count, 2, tree);
      const Range part = Part(half.count, pieces, piece);
      const Slice output{Buffer::kOutput, half.begin + part.begin, part.count};
      Slice sum = Input(c, output.offset, output.count);
      for (const int child : trees[tree].children) {
        flow.RecvReduce(rank_at(child), sum, output);
        sum = output;
      }
      if (trees[tree].parent >= 0) {
        flow.Send(rank_at(trees[tree].parent), sum);
        flow.Recv(rank_at(trees[tree].parent), output);
      }
      for (const int child : trees[tree].children) flow.Send(rank_at(child), output);
    }
  }
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
