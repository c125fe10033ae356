// Waits of the command, in one place. What the parts wait for is in their own policy.h.
#pragma once

#include "absl/time/time.h"

namespace cohort::tools::policy {

// ---- an elastic job
// For a coordinator to answer.
inline constexpr absl::Duration kCoordinatorStart = absl::Seconds(30);
// A job's own coordinator that does not answer for so long is looked at, and started again where it has died.
inline constexpr absl::Duration kCoordinatorSilence = absl::Seconds(1);
// A newcomer waits so long for a coordinator that is away.
inline constexpr absl::Duration kCoordinatorAway = absl::Minutes(5);
// For the members of the job before, at the same coordinator, to be known to be gone.
inline constexpr absl::Duration kFormerJob = absl::Seconds(15);
// At the end, for the other members to leave.
inline constexpr absl::Duration kLastMembers = absl::Seconds(3);
// Who has left and is to come back gives up when nobody trains for so long, as far as it can see.
inline constexpr absl::Duration kNobodyTrains = absl::Seconds(10);
// Between two looks at any of these.
inline constexpr absl::Duration kJobLook = absl::Milliseconds(500);
// A rank that was taken out asks to be taken in again for so long, and so often.
inline constexpr absl::Duration kRejoin = absl::Minutes(5);
inline constexpr absl::Duration kRejoinPause = absl::Seconds(1);

}  // namespace cohort::tools::policy
