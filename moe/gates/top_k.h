// Choosing the K best of a row of scores, shared by the top-k gates.
#pragma once

#include "moe/gates/gate.h"

namespace cohort::moe {

// The choice of the K largest of scores + bias (bias [E] of the state type, undefined: none). The weights are
// the scores of the chosen without the bias, divided by their sum where `normalize`.
Gate::Choice ChooseTopK(const runtime::Tensor& scores, const runtime::Tensor& bias, int64_t k,
                        bool normalize);

// dscores [T, E] += the gradient of dweights [T, K] through the above.
void ChooseTopKGrad(const Gate::Choice& choice, const runtime::Tensor& dweights, bool normalize,
                    const runtime::Tensor& dscores);

}  // namespace cohort::moe
