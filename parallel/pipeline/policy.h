// What the pipeline executor's behaviour hangs on.
#pragma once

namespace cohort::parallel::pipeline::policy {

// Receives are posted this many messages ahead of the one that an action waits for, so that they arrive while the rank
// computes: in the steady state of all schedules the next two are one of each direction. Each holds a buffer.
inline constexpr int kReceivesAhead = 2;

}  // namespace cohort::parallel::pipeline::policy
