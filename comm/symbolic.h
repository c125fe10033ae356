// Symbolic contents of a buffer: not numbers, but whose numbers and how often.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace cohort::comm {

// One summand of a run of elements: element i of the run holds, `times` times, what rank `rank` brought at
// `origin` + i.
struct Term {
  int rank = 0;
  size_t origin = 0;
  int times = 1;
  friend bool operator==(const Term&, const Term&) = default;
};
// Ascending by rank and origin.
using Terms = std::vector<Term>;

// Runs of elements with the same terms, as intervals: a buffer of a million elements
// costs what its pieces do.
class SymbolicBuffer {
 public:
  struct Run {
    size_t offset = 0;
    size_t count = 0;
    std::shared_ptr<const Terms> terms;  // shifted: the origins are those of element `offset - shift`
    size_t shift = 0;
    // Tells in which order the terms were added: equal where the same two sums, in either order, were added
    // at each step, as then the bits of a floating-point result are equal.
    uint64_t order = 0;

    Terms At() const;  // with the shift applied
  };

  void Write(size_t offset, std::vector<Run> runs);
  void Define(size_t offset, size_t count, Terms terms);
  // The runs of [offset, offset + count), with offsets counted from `offset`; an error
  // where some were never written.
  absl::StatusOr<std::vector<Run>> Read(size_t offset, size_t count) const;

 private:
  std::map<size_t, Run> runs_;  // by offset, disjoint
};

// Elementwise a (op) b of two lists of runs over the same count.
std::vector<SymbolicBuffer::Run> Combine(const std::vector<SymbolicBuffer::Run>& a,
                                         const std::vector<SymbolicBuffer::Run>& b);

std::string Describe(const Terms& terms);

}  // namespace cohort::comm
