#include "parallel/sharding/memory.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace cohort::parallel {
namespace {

struct GroupBytes {
  int64_t whole = 0;     // parameters that are gathered for a use
  int64_t gradient = 0;  // gradients that are made whole and then reduced
};

// Runs the hooks of micro-batches over counters, as the engine does over tensors.
class HookCounters {
 public:
  HookCounters(const std::vector<GroupBytes>& groups, const GroupLayout& layout)
      : groups_(groups),
        layout_(layout),
        parameters_(layout),
        gradients_(layout),
        unfinished_(groups.size(), 0),
        whole_(groups.size(), false) {}

  void Run(absl::Span<const pipeline::ActionKind> actions, StateMemory& memory) {
    parameters_.Begin(/*training=*/true);
    for (const pipeline::ActionKind action : actions) {
      switch (action) {
        case pipeline::ActionKind::kForward:
          Forward();
          break;
        case pipeline::ActionKind::kBackward:
          Backward(/*weights=*/true);
          break;
        case pipeline::ActionKind::kBackwardInput:
          Backward(/*weights=*/false);
          break;
        case pipeline::ActionKind::kBackwardWeight:
          for (int group = layout_.last_block(); group >= layout_.first_block(); --group)
            AfterBackward(group);
          break;
      }
    }
    memory.gathered = most_gathered_;
    memory.reducing = most_reducing_;
    memory.peak = memory.resident() + most_;
  }

 private:
  void Forward() {
    for (int group = 0; group <= layout_.last_block(); ++group) {
      BeforeForward(group);
      Apply(parameters_.AfterForward(group));
    }
    const int tied = layout_.tied_group();
    if (layout_.head) {
      BeforeForward(layout_.head_group());
      if (layout_.tied) BeforeBackward(tied);
      BeforeBackward(layout_.head_group());
      AfterBackward(layout_.head_group());
      if (layout_.copy) AfterBackward(tied);
    }
  }
  void Backward(bool weights) {
    for (int group = layout_.last_block(); group >= 0; --group) {
      if (group != layout_.tied_group()) BeforeBackward(group);
      if (weights || group < layout_.first_block()) {  // the embedding's has no halves
        AfterBackward(group);
      } else {
        Apply(parameters_.AfterBackward(group));
      }
    }
  }
  void AfterBackward(int group) {
    Apply(parameters_.AfterBackward(group));
    if (--unfinished_[group] == 0) gradients_.AfterBackward(group);
  }
  void BeforeForward(int group) {
    Free(gradients_.BeforeForward(group));
    Apply(parameters_.BeforeForward(group));
  }
  void BeforeBackward(int group) {
    Free(gradients_.BeforeBackward(group));
    if (!whole_[group]) reducing_ += groups_[group].gradient;
    whole_[group] = true;
    ++unfinished_[group];
    Apply(parameters_.BeforeBackward(group));
  }
  void Free(const std::vector<int>& gradients) {
    for (const int group : gradients) {
      reducing_ -= groups_[group].gradient;
      whole_[group] = false;
    }
  }
  void Apply(const GatherOrder::Actions& actions) {
    for (const int group : actions.free) gathered_ -= groups_[group].whole;
    for (const int group : actions.gather) gathered_ += groups_[group].whole;
    most_gathered_ = std::max(most_gathered_, gathered_);
    most_reducing_ = std::max(most_reducing_, reducing_);
    most_ = std::max(most_, gathered_ + reducing_);
  }

  const std::vector<GroupBytes>& groups_;
  const GroupLayout layout_;
  GatherOrder parameters_;
  GradientOrder gradients_;
  std::vector<int> unfinished_;  // by group: backwards that have begun and whose weights are not in
  std::vector<bool> whole_;      // by group: its gradients are
  int64_t gathered_ = 0, reducing_ = 0, most_gathered_ = 0, most_reducing_ = 0, most_ = 0;
};

}  // namespace

std::string StateMemory::DebugString() const {
  const auto mb = [](int64_t bytes) { return static_cast<double>(bytes) / 1e6; };
  return absl::StrFormat(
      "parameters %.2f MB (and %.2f gathered), gradients %.2f MB (and %.2f before they are reduced), "
      "optimizer state "
      "%.2f MB; at most %.2f MB at a time",
      mb(parameters), mb(gathered), mb(gradients), mb(reducing), mb(optimizer), mb(peak));
}

StateMemory PlanMemory(const std::vector<std::vector<BucketSize>>& groups, const GroupLayout& layout,
                       int64_t compute_bytes, int64_t state_bytes, bool same_type,
                       absl::Span<const pipeline::ActionKind> actions) {
  StateMemory memory;
  std::vector<GroupBytes> bytes(groups.size());
  for (size_t group = 0; group < groups.size(); ++group) {
    for (const BucketSize& bucket : groups[group]) {
      const ShardTree tree(bucket.splits);
      const Splits& splits = bucket.splits;
      const auto held = [&](int level) { return tree.RangeOf(level, bucket.rank, bucket.elements).size(); };
      memory.parameters += held(splits.parameters) * compute_bytes;
      if (splits.keeps_secondary()) memory.parameters += held(splits.secondary) * compute_bytes;
      memory.gradients += held(splits.gradients) * state_bytes;
      if (splits.optimizer > splits.gradients) memory.gradients += held(splits.optimizer) * state_bytes;
      memory.optimizer += held(splits.optimizer) * state_bytes * (same_type ? 2 : 3);
      if (splits.parameters > 1) bytes[group].whole += bucket.elements * compute_bytes;
      if (splits.gradients > 1) bytes[group].gradient += bucket.elements * state_bytes;
    }
  }
  // The second one begins while gradients of the first are on their way.
  using enum pipeline::ActionKind;
  constexpr pipeline::ActionKind kTwoMicroBatches[] = {kForward, kBackward, kForward, kBackward};
  HookCounters(bytes, layout).Run(actions.empty() ? kTwoMicroBatches : actions, memory);
  return memory;
}

}  // namespace cohort::parallel
