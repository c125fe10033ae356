// State for tests of snapshots.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/elastic/snapshot/snapshotter.h"

namespace cohort::runtime::elastic {

// State whose every word says which step it is of, and of which state (`salt`).
class SteppedState {
 public:
  explicit SteppedState(const std::vector<size_t>& words, uint64_t salt = 0) : salt_(salt) {
    for (const size_t count : words) tensors_.emplace_back(count);
  }
  void Set(int64_t step) {
    for (size_t t = 0; t < tensors_.size(); ++t) {
      for (size_t i = 0; i < tensors_[t].size(); ++i) tensors_[t][i] = Word(step, t, i);
    }
  }
  std::vector<StatePiece> Pieces() const {
    std::vector<StatePiece> pieces;
    for (size_t t = 0; t < tensors_.size(); ++t) {
      pieces.push_back(
          {absl::StrCat("tensor ", t), tensors_[t].data(), tensors_[t].size() * sizeof(uint64_t)});
    }
    return pieces;
  }
  // Whether the image is this state after its step.
  bool IsIn(const Image& image) const {
    if (image.pieces.size() != tensors_.size()) return false;
    for (size_t t = 0; t < tensors_.size(); ++t) {
      const auto data = image.pieces[t].data;
      if (data.size() != tensors_[t].size() * sizeof(uint64_t)) return false;
      for (size_t i = 0; i < tensors_[t].size(); ++i) {
        uint64_t word;
        std::memcpy(&word, data.data() + i * sizeof(word), sizeof(word));
        if (word != Word(image.name.step, t, i)) return false;
      }
    }
    return true;
  }

 private:
  uint64_t Word(int64_t step, size_t tensor, size_t i) const {
    return (static_cast<uint64_t>(step) << 40) ^ (salt_ << 36) ^ (tensor << 32) ^ i;
  }
  uint64_t salt_;
  std::vector<std::vector<uint64_t>> tensors_;
};

}  // namespace cohort::runtime::elastic
