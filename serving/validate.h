// From a request on the wire to one that the engine can take.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "cohort/v1/inference.pb.h"
#include "runtime/tokenizer/tokenizer.h"
#include "serving/generation.h"

namespace cohort::serving {

struct RequestLimits {
  int32_t vocabulary_size = 0;
  int32_t capacity = 0;  // the longest sequence, prompt and output together
};

// INVALID_ARGUMENT names the field, what it is and what it may be. `seed` is taken where the request has
// none. Deadline and model are the caller's affair.
absl::StatusOr<GenerationRequest> ValidateRequest(const v1::GenerateRequest& request,
                                                  const runtime::Tokenizer& tokenizer,
                                                  const RequestLimits& limits, uint64_t seed);

}  // namespace cohort::serving
