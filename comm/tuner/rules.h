// Rules that name the algorithm of an operation: overrides that people write in one line, and tables that benchmarks
// write into files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "comm/algorithms/algorithm.h"

namespace cohort::comm {

// From `from` on, below `to`; kNoEnd: whatever comes.
struct TuningRange {
  static constexpr size_t kNoEnd = SIZE_MAX;
  size_t from = 0;
  size_t to = kNoEnd;

  bool Has(size_t value) const { return value >= from && (value < to || to == kNoEnd); }
  bool everything() const { return from == 0 && to == kNoEnd; }
  friend bool operator==(const TuningRange&, const TuningRange&) = default;
};

// For groups of so many hosts and ranks, and operations of so many bytes (TotalCount).
struct TuningRule {
  Operation operation;
  TuningRange hosts, ranks, bytes;
  const Algorithm* algorithm = nullptr;
  size_t piece_bytes = 0;  // 0: as the policy says

  friend bool operator==(const TuningRule&, const TuningRule&) = default;
};
using TuningRules = std::vector<TuningRule>;

// One line: `all-reduce:0-32k=recursive_doubling,32k-inf=ring/64k;all-to-all=bruck`. A range holds its first number,
// not its last; k, m and g are powers of 1,024; after the slash, what a pipelined algorithm cuts its pieces to.
// Ranges of an operation must not overlap. Errors name the position, and what is known there.
absl::StatusOr<TuningRules> ParseOverrides(absl::string_view text);

// A file: the line `cohort-tuning-table 1`, then a line a rule: operation, hosts, ranks, bytes, algorithm. `*` is any
// number, `4` just that, `2-16` as above. The first rule that fits counts. `#` begins a comment. Errors name `source`
// and the line.
absl::StatusOr<TuningRules> ParseTuningTable(absl::string_view text, absl::string_view source);
std::string FormatTuningTable(absl::Span<const TuningRule> rules);

// What an algorithm took.
struct MeasuredTime {
  size_t bytes = 0;
  const Algorithm* algorithm = nullptr;
  double seconds = 0;
};
// The rules for a group that follow: the fastest of each size, from half way to the size before (on the scale of
// powers) to half way to the one after. An algorithm that is not slower than the fastest by more than noise keeps
// what it has.
TuningRules RulesOf(Operation operation, int hosts, int ranks, absl::Span<const MeasuredTime> times);

// `own` instead of what `table` says of the same operations and groups.
TuningRules MergeTuningTables(TuningRules table, const TuningRules& own);

}  // namespace cohort::comm
