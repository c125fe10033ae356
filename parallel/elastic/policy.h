// The numbers of elastic training, in one place.
#pragma once

#include "absl/time/time.h"

namespace cohort::parallel::elastic_policy {

// How much longer than the fastest a mesh's predicted step may take that uses more of the ranks there are.
inline constexpr double kSpareGain = 0.10;
// Of so many ranks every smaller number down to a half is tried. Of more, at most so many numbers within that part of them:
// the largest with more legal meshes, twice as many each time, than every larger one.
inline constexpr int kEveryNumberUpTo = 64;
inline constexpr size_t kNumbersTried = 4;
inline constexpr double kSparesTried = 1.0 / 16;
// Changes of the mesh that fail one after another, without anybody having come or gone, before the run ends.
inline constexpr int kFailedChanges = 5;
// The longest that the ranks of the mesh may take between two step boundaries, as ranks that wait see it: a step, an
// evaluation and a checkpoint. That the others live is seen otherwise, and much sooner.
inline constexpr absl::Duration kSpareWait = absl::Hours(6);
// Edits by a half to which the coordinator has given the word after the other half's death.
inline constexpr int kTieAttempts = 5;

// A rank's copy of its state into memory of the keeper: it has the whole of a step's gradients for it, so it is there.
inline constexpr absl::Duration kSnapshotTimeout = absl::Seconds(60);
// Encoding a generation over hosts, and bringing one back.
inline constexpr absl::Duration kParityTimeout = absl::Seconds(120);

// Of the thread that writes checkpoints from snapshots. It takes what the training leaves, and where that uses all cores
// about a tenth of one: with 19, a seventieth, a checkpoint takes as long again as it is slower, and may be lost meanwhile.
inline constexpr int kSaveNice = 10;
// How often ranks that write a checkpoint in the background say that they still do; far below an operation's timeout.
inline constexpr absl::Duration kSaveHeartbeat = absl::Seconds(1);

}  // namespace cohort::parallel::elastic_policy
