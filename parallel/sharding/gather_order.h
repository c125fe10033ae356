// When parameter groups are whole: which gathers start and which groups are freed at each of the decoder's hooks. A pure
// value, run by the engine and by what predicts its memory.
#pragma once

#include <vector>

namespace cohort::parallel {

// The groups of a decoder, or of a part of one.
struct GroupLayout {
  int groups;
  bool embedding = true, head = true;  // whether the first, and the last, is that
  bool tied = false;                   // the embedding serves as the head's matrix

  int first_block() const { return embedding ? 1 : 0; }
  int last_block() const { return groups - (head ? 2 : 1); }
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

}  // namespace cohort::parallel
