// Small things that all ranks add up or agree on. Collective and blocking; errors are the communicator's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "comm/communicator.h"
#include "runtime/model/batch.h"

namespace cohort::parallel {

// In place, the same bits on every rank.
absl::Status SumOverRanks(comm::Communicator& ranks, runtime::LossSums& sums);
absl::Status SumOverRanks(comm::Communicator& ranks, absl::Span<int64_t> values);
absl::Status SumOverRanks(comm::Communicator& ranks, absl::Span<double> values);

// OK where every rank's status is. Otherwise a rank's own error, or, where it has none, ABORTED with how many
// ranks failed at `what` ("reading its part of the batch") and the first one's message.
absl::Status AgreeOnSuccess(comm::Communicator& ranks, const absl::Status& mine, const std::string& what);

// Every rank's string, by rank.
absl::StatusOr<std::vector<std::string>> GatherStrings(comm::Communicator& ranks, const std::string& mine);

}  // namespace cohort::parallel
