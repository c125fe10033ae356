#include "parallel/sharding/memory.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "parallel/sharding/tree_memory.h"

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
      : groups_(groups), layout_(layout), parameters_(layout), gradients_(layout), uses_(groups.size()) {}

  // In deterministic mode a bucket's gradients are summed by a tree, and leave once a step.
  void SumByTree(int group, const BucketSize& bucket, int64_t state_bytes) {
    uses_[group].trees.emplace_back(*bucket.order, bucket.splits, bucket.rank, bucket.elements, state_bytes,
                                    [this](int64_t bytes) { AddGradients(bytes); });
  }

  void Run(absl::Span<const pipeline::Action> actions, StateMemory& memory) {
    parameters_.Begin(/*training=*/true);
    micro_batches_ = static_cast<int>(std::count_if(actions.begin(), actions.end(), [](const auto& action) {
      return action.kind == pipeline::ActionKind::kForward;
    }));
    for (const pipeline::Action& action : actions) {
      for (Uses& uses : uses_) {
        for (TreeMemory& tree : uses.trees) tree.Enter(action.micro_batch);
      }
      switch (action.kind) {
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
    Uses& uses = uses_[group];
    ++uses.over;
    for (TreeMemory& tree : uses.trees) tree.Close();
    if (uses.over < (uses.trees.empty() ? uses.begun : micro_batches_)) return;
    for (TreeMemory& tree : uses.trees) tree.StartExchange();
    gradients_.AfterBackward(group);
  }
  void BeforeForward(int group) {
    Free(gradients_.BeforeForward(group));
    Apply(parameters_.BeforeForward(group));
  }
  void BeforeBackward(int group) {
    Free(gradients_.BeforeBackward(group));
    Uses& uses = uses_[group];
    if (!std::exchange(uses.whole, true)) AddGradients(groups_[group].gradient);
    ++uses.begun;
    for (TreeMemory& tree : uses.trees) tree.Open();
    Apply(parameters_.BeforeBackward(group));
  }
  void Free(const std::vector<int>& gradients) {
    for (const int group : gradients) {
      if (std::exchange(uses_[group].whole, false)) AddGradients(-groups_[group].gradient);
      for (TreeMemory& tree : uses_[group].trees) tree.Release();
    }
  }
  void Apply(const GatherOrder::Actions& actions) {
    for (const int group : actions.free) gathered_ -= groups_[group].whole;
    for (const int group : actions.gather) gathered_ += groups_[group].whole;
    most_gathered_ = std::max(most_gathered_, gathered_);
    most_ = std::max(most_, gathered_ + reducing_);
  }
  void AddGradients(int64_t bytes) {
    reducing_ += bytes;
    most_reducing_ = std::max(most_reducing_, reducing_);
    most_ = std::max(most_, gathered_ + reducing_);
  }

  // Of a group.
  struct Uses {
    int begun = 0, over = 0;  // backwards: the second with their weights
    bool whole = false;       // its gradients are
    std::vector<TreeMemory> trees;
  };

  const std::vector<GroupBytes>& groups_;
  const GroupLayout layout_;
  GatherOrder parameters_;
  GradientOrder gradients_;
  std::vector<Uses> uses_;
  int micro_batches_ = 0;
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
                       absl::Span<const pipeline::Action> actions) {
  StateMemory memory;
  std::vector<GroupBytes> bytes(groups.size());
  HookCounters counters(bytes, layout);
  for (size_t group = 0; group < groups.size(); ++group) {
    for (const BucketSize& bucket : groups[group]) {
      const ShardTree tree(bucket.splits);
      const Splits& splits = bucket.splits;
      const auto held = [&](int level) { return tree.RangeOf(level, bucket.rank, bucket.elements).size(); };
      memory.parameters += held(splits.parameters) * compute_bytes;
      if (splits.keeps_secondary()) memory.parameters += held(splits.secondary) * compute_bytes;
      if (bucket.order != nullptr) {
        memory.gradients += held(splits.optimizer) * state_bytes;
        counters.SumByTree(static_cast<int>(group), bucket, state_bytes);
      } else {
        memory.gradients += held(splits.gradients) * state_bytes;
        if (splits.optimizer > splits.gradients) memory.gradients += held(splits.optimizer) * state_bytes;
        if (splits.gradients > 1) bytes[group].gradient += bucket.elements * state_bytes;
      }
      memory.optimizer += held(splits.optimizer) * state_bytes * (same_type ? 2 : 3);
      if (splits.parameters > 1) bytes[group].whole += bucket.elements * compute_bytes;
    }
  }
  // The second one begins while gradients of the first are on their way.
  using enum pipeline::ActionKind;
  constexpr pipeline::Action kTwoMicroBatches[] = {
      {kForward, 0, 0}, {kBackward, 0, 0}, {kForward, 0, 1}, {kBackward, 0, 1}};
  counters.Run(actions.empty() ? kTwoMicroBatches : actions, memory);
  return memory;
}

}  // namespace cohort::parallel
