// When parameter groups and their gradients are whole: which gathers start, which sums must be over and what
// is freed at each of the decoder's hooks. Pure values, run by the engine and by what predicts its memory.
#pragma once

#include <cstddef>
#include <vector>

namespace cohort::parallel {

// The groups of a decoder, or of a part of one.
struct GroupLayout {
  int groups;
  bool embedding = true, head = true;  // whether the first, and the last, is that
  bool tied = false;                   // an embedding serves as the head's matrix: the first group, or
  bool copy = false;                   // a copy of it, which is the last group but the head

  int first_block() const { return embedding ? 1 : 0; }
  int last_block() const { return groups - (head ? 2 : 1) - (copy ? 1 : 0); }
  int head_group() const { return groups - 1; }
  // The head's matrix, where that is no part of the head's group; -1: it is.
  int tied_group() const { return !tied ? -1 : copy ? groups - 2 : 0; }
};

// A group is whole from a little before its use, so that its gather goes on behind the use of the one before, until that
// use is over. So at most two blocks are whole at a time. Before a head that trains, the last block is used again at once
// and stays. The embedding's rows are not needed in the backward, but where it is tied it serves as the head.
// Micro-batches may interleave, as in a pipeline: each forward and each backward is whole in itself.
class GatherOrder {
 public:
  explicit GatherOrder(const GroupLayout& layout) : layout_(layout), whole_(layout.groups, false) {}

  // What a hook asks for: free these, then start to gather those. What is about to be used comes first.
  struct Actions {
    std::vector<int> free, gather;
  };
  // Whether backwards follow from now on. Nothing is whole.
  void Begin(bool training);
  Actions BeforeForward(int group);
  Actions AfterForward(int group);
  Actions BeforeBackward(int group);
  // The values are not needed any more: after the backward, or its first half.
  Actions AfterBackward(int group);
  // Frees everything: after an error too.
  Actions End();

 private:
  void Need(int group, Actions& actions);
  void Release(int group, Actions& actions);

  GroupLayout layout_;
  std::vector<bool> whole_;
  bool training_ = false;
  int forward_ = -1;  // the last group whose forward began
};

// Whole gradients of a group leave when its backward is over, and their sum goes on behind what comes next.
// Their memory goes at a hook that does not depend on how fast the network was, so that what a rank holds is
// known beforehand: at the next use but one, or, where the head's backward or its own comes first, before
// that. So beside the gradients that are being made there are those of one other group at most, and none
// beside the head's; and the embedding's have all of the next micro-batch's forward for their sum.
class GradientOrder {
 public:
  explicit GradientOrder(const GroupLayout& layout) : layout_(layout) {}

  // The groups whose sums must be over before this use, and whose whole gradients then go.
  std::vector<int> BeforeForward(int group);
  std::vector<int> BeforeBackward(int group);
  // The sum of this group's starts.
  void AfterBackward(int group) { leaving_.push_back(group); }
  // Everything: after a step, and after an error.
  std::vector<int> End();

 private:
  std::vector<int> AllBut(size_t latest);

  GroupLayout layout_;
  std::vector<int> leaving_;  // in the order in which they left
};

}  // namespace cohort::parallel
