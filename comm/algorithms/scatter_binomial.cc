// Binomial-tree scatter: parts go down a tree of depth log2 p, those of a subtree together.
#include "comm/algorithms/subtree.h"

namespace cohort::comm::algorithms {

Schedule BinomialScatter(const Collective& c) {
  const bool root = c.rank == c.root;
  const Subtree tree(c);
  const Slice output{Buffer::kOutput, 0, c.in_place ? 0 : c.counts[c.rank]};
  Flow flow(root ? tree.total() : 0, output.count);
  if (tree.leaf()) {
    flow.Recv(tree.parent(), output);
    return std::move(flow).Build();
  }
  Slice work;
  if (!root) {
    work = flow.Scratch(tree.Count(tree.place(), tree.below()));
    tree.ForPieces(tree.place(), tree.below(), work, [&](const Slice& at) { flow.Recv(tree.parent(), at); });
  }
  for (int bit = tree.below() / 2; bit > 0; bit /= 2) {  // the largest subtree first
    if (tree.place() + bit >= c.size) continue;
    tree.ForPieces(tree.place() + bit, bit, work, [&](Slice at) {
      if (root) at.buffer = Buffer::kInput;
      flow.Send(tree.At(bit), at);
    });
  }
  if (!c.in_place) {
    const Slice own =
        root ? Slice{Buffer::kInput, tree.Home(0).offset, output.count} : work.Part(0, output.count);
    flow.Copy(own, output);
  }
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
