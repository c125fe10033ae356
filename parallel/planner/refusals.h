// What a search refused, counted by reason, with one case of each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace cohort::parallel::planner {

struct Refusal {
  std::string what;    // was refused: "meshes", "shardings of a mesh", "plans"
  std::string reason;  // the same for all that are counted
  std::string as;      // the numbers of the first; empty: the reason says all
  int64_t number = 0;

  // "12 meshes: heads that do not divide, as 4 over 3 tensor ranks".
  std::string DebugString() const;
};

class Refusals {
 public:
  // The message of `why` is "reason: numbers", or a reason alone.
  void Add(absl::string_view what, const absl::Status& why);
  // In the order in which they first came.
  const std::vector<Refusal>& rows() const { return rows_; }
  // Of all that were refused for it.
  int64_t NumberOf(absl::string_view reason) const;

 private:
  std::vector<Refusal> rows_;
};

}  // namespace cohort::parallel::planner
