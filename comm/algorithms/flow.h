// Builds a schedule from steps in program order: which step must wait for which follows from what they read
// and write.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "absl/types/span.h"
#include "comm/schedule.h"

namespace cohort::comm::algorithms {

// An algorithm says what happens as if it happened one step after the other. A step then waits for those
// before it that write what it reads, or read or write what it writes, and for nothing else; so pieces of a
// pipeline overlap by themselves. The n-th message to a peer meets the peer's n-th from this rank: both must
// list them in the same order. Steps on empty slices are left out on both sides.
//
// A receive that overwrites what a send of the same exchange reads waits for that send, and the peer's for
// its own: a deadlock, which the simulator finds. Such exchanges need a second buffer.
class Flow {
 public:
  Flow(size_t input_count, size_t output_count) : builder_(input_count, output_count) {}

  Slice Scratch(size_t count) { return builder_.Scratch(count); }
  Slice Wire(size_t count) { return builder_.Wire(count); }
  Slice Sums(size_t count) { return builder_.Sums(count); }

  // Also waits for `after`, if that is a step; gives the own one.
  StepId Send(int peer, Slice source, StepId after = kNoStep);
  void Recv(int peer, Slice destination);
  // destination = source (op) what comes; they may be the same.
  void RecvReduce(int peer, Slice source, Slice destination);
  void Copy(Slice source, Slice destination);
  // destination = destination (op) source.
  void Reduce(Slice source, Slice destination);

  // Where stages of a pipeline use different links, a piece should not share a stage's link with all those
  // behind it, or all of them come through it at the same, late time. But alone it leaves the link idle between its
  // rounds. So policy::kPiecesInStage may be in a stage: what is added after Enter(stage) waits for the last receive
  // that was added in this stage by the piece that many before, of those that received in it.
  void Enter(int stage);

  Schedule Build() && { return std::move(builder_).Build(); }

 private:
  // Who wrote these elements last, and who has read them since.
  struct Span {
    size_t end = 0;
    StepId writer = kNoStep;
    std::vector<StepId> readers;
  };
  using Spans = std::map<size_t, Span>;  // by begin; disjoint, without gaps up to the last end

  // What a step that touches the slice must wait for, added to after_.
  void Await(const Slice& slice, bool writes);
  void Note(const Slice& slice, bool writes, StepId step);
  // Cuts the spans at the slice's ends; the first span of the slice.
  Spans::iterator Isolate(const Slice& slice);
  absl::Span<const StepId> After();

  ScheduleBuilder builder_;
  Spans spans_[kNumBuffers];                       // by buffer
  std::map<int, uint32_t> next_send_, next_recv_;  // tags, by peer
  std::vector<StepId> after_;                      // of the step being added
  int stage_ = 0;
  std::map<int, std::vector<StepId>> received_;  // by stage: the last of every piece that has been there
  StepId last_received_ = kNoStep;               // in this stage, since
  StepId held_by_ = kNoStep;
};

}  // namespace cohort::comm::algorithms
