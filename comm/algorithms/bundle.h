// The parts of some ranks packed side by side, so that they travel as one message.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "comm/algorithms/team.h"

namespace cohort::comm::algorithms {

// Of a buffer laid out in the order of all ranks (part r at offsets[r]), the parts of `ranks`, ascending.
class Bundle {
 public:
  Bundle(absl::Span<const size_t> offsets, absl::Span<const int> ranks) {
    for (const int rank : ranks) {
      begin_.push_back(offsets[rank]);
      packed_.push_back(packed_.back() + offsets[rank + 1] - offsets[rank]);
    }
    // Side by side already, but for ranks that have nothing.
    contiguous_ = !ranks.empty() && offsets[ranks.back() + 1] - begin_.front() == packed_.back();
  }

  size_t count() const { return packed_.back(); }
  bool contiguous() const { return contiguous_; }
  // The parts where they lie, if contiguous.
  Slice Whole(const Slice& all) const { return all.Part(begin_.front(), count()); }
  // The part of the i-th rank, where it lies and in the bundle.
  Slice Unpacked(const Slice& all, size_t i) const {
    return all.Part(begin_[i], packed_[i + 1] - packed_[i]);
  }
  Slice Packed(const Slice& bundle, size_t i) const {
    return bundle.Part(packed_[i], packed_[i + 1] - packed_[i]);
  }

 private:
  std::vector<size_t> begin_, packed_ = {0};
  bool contiguous_ = false;
};

}  // namespace cohort::comm::algorithms
