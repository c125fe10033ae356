// Computes settings of meshes in real processes and compares each with one rank.
#pragma once

#include <string>
#include <vector>

#include "tests/parallel/mesh_settings.h"

namespace cohort::parallel {

struct MeshCount {
  int computed = 0, refused = 0;
};

// All of one model, in the same `ranks` processes. Sequences have different lengths, some shorter than the
// ranks that share them; some targets are ignored, those of one sequence all; the batch is accumulated over
// micro-batches of one sequence; of a sparse model's experts one gets no token and one gets most. Of every
// setting that need not be refused (ExpectedRefusal), in double precision on the reference device within
// 1e-10 and again in f32 on the CPU within 1e-5:
//
// - each parameter's gradient is that of one rank, relative to its norm, and every element is held by some
//   rank;
// - ranks that hold the same element hold the same bits;
// - losses, the norm of the gradient and the experts' loads are those of one rank, on all ranks;
// - after a step of gradient descent the held-out loss is that of one rank.
//
// One rank's own gradients in f32 are those in double precision within 2e-6.
MeshCount ExpectTheMathematicsOfOneRank(const std::string& model, int ranks,
                                        const std::vector<MeshSetting>& settings);

}  // namespace cohort::parallel
