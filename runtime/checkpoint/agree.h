// How ranks agree on what became of something each of them did alone.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/train/trainable.h"

namespace cohort::runtime {

// Collective. OK where every rank's status is; else, on every rank, the code of the first failed rank and the
// messages of all failed ones. A failure of the exchange itself is returned as it is.
absl::Status AgreeStatus(Trainable& trainable, const absl::Status& mine);
// The same over ranks that exchange strings so.
absl::Status AgreeStatus(
    const std::function<absl::StatusOr<std::vector<std::string>>(const std::string&)>& gather,
    const absl::Status& mine);

}  // namespace cohort::runtime
