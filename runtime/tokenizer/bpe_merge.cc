#include "runtime/tokenizer/bpe_merge.h"

#include <algorithm>
#include <array>
#include <limits>
#include <queue>

#include "runtime/tokenizer/policy.h"

namespace cohort::runtime {
namespace {

constexpr MergeRule kNoRule = {std::numeric_limits<int32_t>::max(), -1};

}  // namespace

void MergeTable::MergeAll(std::vector<int32_t>* symbols) const {
  if (symbols->size() <= tokenizer_policy::kMaxSymbolsToScan) {
    MergeByScanning(symbols);
  } else {
    MergeByHeap(symbols);
  }
}

void MergeTable::MergeByScanning(std::vector<int32_t>* symbols) const {
  // rules[i] is the rule for symbols i and i + 1.
  std::array<MergeRule, tokenizer_policy::kMaxSymbolsToScan> rules;
  size_t count = symbols->size();
  int32_t* s = symbols->data();
  const auto rule_at = [&](size_t i) {
    const MergeRule* rule = Find(s[i], s[i + 1]);
    return rule == nullptr ? kNoRule : *rule;
  };
  for (size_t i = 0; i + 1 < count; ++i) rules[i] = rule_at(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (rules[i].rank < rules[best].rank) best = i;
    }
    if (rules[best].result < 0) break;
    s[best] = rules[best].result;
    for (size_t i = best + 1; i + 1 < count; ++i) {
      s[i] = s[i + 1];
      rules[i - 1] = rules[i];
    }
    --count;
    if (best + 1 < count) rules[best] = rule_at(best);
    if (best > 0) rules[best - 1] = rule_at(best - 1);
  }
  symbols->resize(count);
}

void MergeTable::MergeByHeap(std::vector<int32_t>* symbols) const {
  // A doubly linked list over the word, and a heap of the merges that are possible or were.
  struct Node {
    int32_t id;  // -1: merged into its left neighbour
    int64_t previous, next;
  };
  struct Candidate {
    int32_t rank;
    int64_t position;
    int32_t left, right, result;
    bool operator<(const Candidate& other) const {  // std::priority_queue takes the largest first
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  const auto count = static_cast<int64_t>(symbols->size());
  std::vector<Node> nodes(symbols->size());
  for (int64_t i = 0; i < count; ++i) nodes[i] = {(*symbols)[i], i - 1, i + 1};
  std::vector<Candidate> initial;
  const auto candidate_at = [&](int64_t i, auto add) {
    if (i < 0 || nodes[i].next >= count) return;
    const int32_t left = nodes[i].id, right = nodes[nodes[i].next].id;
    if (const MergeRule* rule = Find(left, right)) add(Candidate{rule->rank, i, left, right, rule->result});
  };
  for (int64_t i = 0; i < count; ++i) candidate_at(i, [&](const Candidate& c) { initial.push_back(c); });
  std::priority_queue<Candidate> heap(std::less<Candidate>(), std::move(initial));
  while (!heap.empty()) {
    const Candidate top = heap.top();
    heap.pop();
    Node& node = nodes[top.position];
    if (node.id != top.left || node.next >= count || nodes[node.next].id != top.right) continue;  // outdated
    Node& right = nodes[node.next];
    node.id = top.result;
    right.id = -1;
    node.next = right.next;
    if (node.next < count) nodes[node.next].previous = top.position;
    const auto push = [&](const Candidate& c) { heap.push(c); };
    candidate_at(top.position, push);
    candidate_at(node.previous, push);
  }
  symbols->clear();
  for (int64_t i = 0; i < count; i = nodes[i].next) symbols->push_back(nodes[i].id);
}

}  // namespace cohort::runtime
