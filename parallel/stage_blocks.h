// Which blocks of a model each pipeline stage has. Pure.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "runtime/model/decoder.h"
#include "runtime/model/model_config.h"

namespace cohort::parallel {

// The first block of each stage, and at the end the number of blocks: by the parameters that a token meets, to which
// the time of a block is about proportional. INVALID_ARGUMENT: more stages than blocks.
absl::StatusOr<std::vector<int>> StageBlocks(const runtime::ModelConfig& config, int stages);

// What a stage has of the model, of those that StageBlocks has cut.
runtime::DecoderPart StagePart(const std::vector<int>& first_block, int stage);

}  // namespace cohort::parallel
