#include "parallel/planner/refusals.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace cohort::parallel::planner {

std::string Refusal::DebugString() const {
  return absl::StrCat(number, " ", what, ": ", reason, as.empty() ? "" : ", as ", as);
}

void Refusals::Add(absl::string_view what, const absl::Status& why) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(why.message(), absl::MaxSplits(": ", 1));
  for (Refusal& row : rows_) {
    if (row.what != what || row.reason != parts.first) continue;
    ++row.number;
    return;
  }
  rows_.push_back({std::string(what), std::string(parts.first), std::string(parts.second), 1});
}

int64_t Refusals::NumberOf(absl::string_view reason) const {
  int64_t sum = 0;
  for (const Refusal& row : rows_) sum += row.reason == reason ? row.number : 0;
  return sum;
}

}  // namespace cohort::parallel::planner
