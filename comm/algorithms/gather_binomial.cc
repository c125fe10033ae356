// Binomial-tree gather: parts go up a tree of depth log2 p, those of a subtree together. Few messages for the root, but
// a part travels up to log2 p times.
#include "comm/algorithms/subtree.h"

namespace cohort::comm::algorithms {

Schedule BinomialGather(const Collective& c) {
  const bool root = c.rank == c.root;
  const Subtree tree(c);
  Flow flow(c.in_place ? 0 : c.counts[c.rank], root ? tree.total() : 0);
  const Slice input = Input(c, c.in_place ? tree.Home(0).offset : 0, c.counts[c.rank]);
  if (tree.leaf()) {
    flow.Send(tree.parent(), input);
    return std::move(flow).Build();
  }
  const Slice work = root ? Slice{} : flow.Scratch(tree.Count(tree.place(), tree.below()));
  for (int bit = 1; bit < tree.below() && tree.place() + bit < c.size; bit *= 2) {
    // To the root in rank order; elsewhere counted from the root, as it travels.
    tree.ForPieces(tree.place() + bit, bit, work, [&](const Slice& at) { flow.Recv(tree.At(bit), at); });
  }
  flow.Copy(input, root ? tree.Home(0) : work.Part(0, c.counts[c.rank]));
  if (!root) {
    tree.ForPieces(tree.place(), tree.below(), work, [&](const Slice& at) { flow.Send(tree.parent(), at); });
  }
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
