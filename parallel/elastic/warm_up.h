// A newcomer's first step takes longer than the next ones: threads start, memory comes from the system, products of each
// shape are prepared. It is made before it matters, by the newcomer alone.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "cohort/v1/elastic.pb.h"
#include "parallel/batch_source.h"
#include "runtime/device/device.h"
#include "runtime/model/model_config.h"

namespace cohort::parallel {

// Gradients of the first block of the model, on one rank, of as many sequences as a rank of this mesh computes at once.
// Nothing of it stays but what the process has learned. An error harms nobody.
absl::Status WarmUp(const v1::ElasticMesh& mesh, const runtime::ModelConfig& model, runtime::Device& device,
                    std::unique_ptr<BatchSource> source);

}  // namespace cohort::parallel
