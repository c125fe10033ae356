// Where the gradients of a training lie: each beside its master. They move as its state does (MoveState), between the
// end of a step's backward and its update.
#pragma once

#include "parallel/reshard/layout.h"
#include "parallel/reshard/training_layout.h"
#include "runtime/train/trainable.h"

namespace cohort::parallel {

// Of the layout of a training (TrainingLayout): "<parameter>/grad" for each master, in their order. Pure.
Layout GradientLayout(const Layout& training);

// What this rank holds of them, in that order; the memory is the trainable's.
HeldState GradientsOf(runtime::Trainable& trainable);

}  // namespace cohort::parallel
