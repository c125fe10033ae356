// The inner loop of BPE: merging the symbols of one word.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace cohort::runtime {

// What two adjacent tokens become, and how early: lower ranks merge first.
struct MergeRule {
  int32_t rank;
  int32_t result;
};

class MergeTable {
 public:
  // A pair that is added twice keeps the later rule.
  void Add(int32_t left, int32_t right, MergeRule rule) { rules_[Key(left, right)] = rule; }
  void Reserve(size_t count) { rules_.reserve(count); }

  const MergeRule* Find(int32_t left, int32_t right) const {
    const auto found = rules_.find(Key(left, right));
    return found == rules_.end() ? nullptr : &found->second;
  }

  // Merges `symbols` in place until no rule applies: always the pair of lowest rank, the leftmost among
  // equals. O(n log n) for long words.
  void MergeAll(std::vector<int32_t>* symbols) const;

 private:
  static uint64_t Key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  void MergeByScanning(std::vector<int32_t>* symbols) const;
  void MergeByHeap(std::vector<int32_t>* symbols) const;

  absl::flat_hash_map<uint64_t, MergeRule> rules_;
};

}  // namespace cohort::runtime
