// Who is late, where most of those who do not answer only wait themselves.
#pragma once

#include <functional>
#include <optional>
#include <vector>

namespace cohort::comm {

// Whom a rank waits for; nullopt where it does not wait, or gives no sign of it.
using AwaitedBy = std::function<std::optional<std::vector<int>>(int rank)>;

// Follows from `suspects` to those they wait for, and so on, to those who wait for nobody: these keep the others.
// Ascending. Empty where all wait, in a circle or for `self`.
std::vector<int> FollowWaits(const std::vector<int>& suspects, int self, const AwaitedBy& awaited_by);

}  // namespace cohort::comm
