#include "parallel/sharding/gather_order.h"

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
    COHORT_CHECK(!whole_[group], "group %zu is still whole when a micro-batch begins", group);
  }
  training_ = training;
  forward_ = -1;
}

GatherOrder::Actions GatherOrder::BeforeForward(int group) {
  Actions actions;
  Need(group, actions);
  if (group < forward_) return actions;  // the embedding again, for the head
  forward_ = group;
  if (group == head()) return actions;
  if (group + 1 == head() && tied_) Need(0, actions);
  Need(group + 1, actions);
  return actions;
}

GatherOrder::Actions GatherOrder::AfterForward(int group) {
  Actions actions;
  const bool used_again_soon = training_ && group > 0 && group + 1 == head();
  if (!used_again_soon) Release(group, actions);
  return actions;
}

GatherOrder::Actions GatherOrder::BeforeBackward(int group) {
  Actions actions;
  if (group > 0 || tied_) Need(group, actions);
  if (group > 1) Need(group - 1, actions);
  return actions;
}

GatherOrder::Actions GatherOrder::AfterBackward(int group) {
  Actions actions;
  Release(group, actions);
  return actions;
}

GatherOrder::Actions GatherOrder::End() {
  Actions actions;
  for (int group = 0; group <= head(); ++group) Release(group, actions);
  return actions;
}

}  // namespace cohort::parallel
