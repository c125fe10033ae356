// Steps and results as bytes, between ranks of one job (same build, same byte order).
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "serving/step.h"

namespace cohort::serving {

std::string EncodeStep(const RankStep& step);
std::string EncodeResult(const RankResult& result);

// INTERNAL where the bytes are not what the encoder makes.
absl::StatusOr<RankStep> DecodeStep(const std::string& bytes);
absl::StatusOr<RankResult> DecodeResult(const std::string& bytes);

}  // namespace cohort::serving
