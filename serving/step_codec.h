// Steps and results as bytes, between ranks of one job (same build, same byte order).
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "serving/step.h"

namespace cohort::serving {

std::string EncodeStep(const RankStep& step);
// A result, or why there is none.
std::string EncodeAnswer(const absl::StatusOr<RankResult>& answer);

// INTERNAL where the bytes are not what the encoder makes.
absl::StatusOr<RankStep> DecodeStep(const std::string& bytes);
// UNAVAILABLE, with what the rank said, where there is no result.
absl::StatusOr<RankResult> DecodeAnswer(int rank, const std::string& bytes);

}  // namespace cohort::serving
