// When parameter groups are whole: which gathers start and which groups are freed at each of the decoder's hooks. A pure
// value, run by the engine and by what predicts its memory.
#pragma once

#include <vector>

namespace cohort::parallel {

// Groups as the decoder numbers them: embedding 0, blocks, head last. A group is whole from a little before its use, so
// that its gather goes on behind the use of the one before, until that use is over. So at most two blocks are whole
// at a time. The last block is used again as soon as the head is done and stays. The embedding's rows are not
// needed in the backward, but where it is tied it serves as the head.
class GatherOrder {
 public:
  GatherOrder(int groups, bool tied) : whole_(groups, false), tied_(tied) {}

  // What a hook asks for: free these, then start to gather those. What is about to be used comes first.
  struct Actions {
    std::vector<int> free, gather;
  };
  // Before a micro-batch: with a backward or without.
  void Begin(bool training);
  Actions BeforeForward(int group);
  Actions AfterForward(int group);
  Actions BeforeBackward(int group);
  Actions AfterBackward(int group);
  // Frees everything: after an error too.
  Actions End();

 private:
  int head() const { return static_cast<int>(whole_.size()) - 1; }
  void Need(int group, Actions& actions);
  void Release(int group, Actions& actions);

  std::vector<bool> whole_;
  bool tied_;
  bool training_ = false;
  int forward_ = -1;  // the last group whose forward began
};

}  // namespace cohort::parallel
