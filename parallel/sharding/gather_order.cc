#include "parallel/sharding/gather_order.h"

#include <algorithm>
#include <utility>

#include "comm/check.h"

namespace cohort::parallel {

void GatherOrder::Need(int group, Actions& actions) {
  if (whole_[group]) return;
  whole_[group] = true;
  actions.gather.push_back(group);
}

void GatherOrder::Release(int group, Actions& actions) {
  if (!whole_[group]) return;
  whole_[group] = false;
  actions.free.push_back(group);
}

void GatherOrder::Begin(bool training) {
  for (size_t group = 0; group < whole_.size(); ++group) {
    COHORT_CHECK(!whole_[group], "group %zu is still whole when a step begins", group);
  }
  training_ = training;
  forward_ = -1;
}

GatherOrder::Actions GatherOrder::BeforeForward(int group) {
  Actions actions;
  Need(group, actions);
  const bool for_the_head = group == layout_.tied_group() && forward_ == layout_.last_block();
  if (for_the_head) return actions;
  forward_ = group;
  if (group < layout_.last_block()) {
    Need(group + 1, actions);
  } else if (group == layout_.last_block() && layout_.head) {
    if (layout_.tied) Need(layout_.tied_group(), actions);
    Need(layout_.head_group(), actions);
  }
  return actions;
}

GatherOrder::Actions GatherOrder::AfterForward(int group) {
  Actions actions;
  const bool used_again_soon = training_ && layout_.head && group == layout_.last_block();
  if (!used_again_soon) Release(group, actions);
  return actions;
}

GatherOrder::Actions GatherOrder::BeforeBackward(int group) {
  Actions actions;
  if (group >= layout_.first_block() || group == layout_.tied_group()) Need(group, actions);
  if (group > layout_.first_block()) Need(group - 1, actions);
  return actions;
}

GatherOrder::Actions GatherOrder::AfterBackward(int group) {
  Actions actions;
  Release(group, actions);
  return actions;
}

GatherOrder::Actions GatherOrder::End() {
  Actions actions;
  for (int group = 0; group < layout_.groups; ++group) Release(group, actions);
  return actions;
}

std::vector<int> GradientOrder::AllBut(size_t latest) {
  const auto stay = leaving_.end() - static_cast<std::ptrdiff_t>(std::min(latest, leaving_.size()));
  std::vector<int> gone(leaving_.begin(), stay);
  leaving_.erase(leaving_.begin(), stay);
  return gone;
}

std::vector<int> GradientOrder::BeforeForward(int) { return AllBut(1); }

std::vector<int> GradientOrder::BeforeBackward(int group) {
  const bool head = group > layout_.last_block();
  const bool again = !leaving_.empty() && leaving_.back() == group;
  return AllBut(head || again ? 0 : 1);
}

std::vector<int> GradientOrder::End() { return std::exchange(leaving_, {}); }

}  // namespace cohort::parallel
