// The prepared data as the batches of a model that is spread over ranks.
#pragma once

#include <memory>

#include "parallel/batch_source.h"
#include "runtime/data/loader.h"
#include "runtime/device/device.h"

namespace cohort::tools {

// `held_out` may be null: no held-out data. Tensors are made on `device`.
std::unique_ptr<parallel::BatchSource> MakeLoaderSource(
    std::shared_ptr<const runtime::TrainLoader> training,
    std::shared_ptr<const runtime::EvaluationLoader> held_out, runtime::Device& device);

}  // namespace cohort::tools
