// Attention of two batches of which the second goes on with the last sequence of the first.
#pragma once

#include "runtime/model/batch.h"

namespace cohort::parallel {

// Gives both batches their attention. Of every layer the first batch's forward comes before the second's, and
// the second one's backward before the first's; nothing else happens to the two in between. No communication,
// no errors.
void ContinueAttention(runtime::TokenBatch& first, runtime::TokenBatch& second);

}  // namespace cohort::parallel
