// The model that a configuration describes, spread over the ranks of a group.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "cohort/v1/config.pb.h"
#include "comm/communicator.h"
#include "parallel/batch_source.h"
#include "parallel/parallel_model.h"
#include "runtime/device/device.h"
#include "runtime/model/model_config.h"

namespace cohort::parallel {

// Collective over `group`. `config` is complete for as many ranks (runtime/config). Values are undefined until they are
// set. As ArrangementOf, MakeMesh and ParallelModel::Create.
absl::StatusOr<std::unique_ptr<ParallelModel>> MakeConfiguredModel(const v1::TrainConfig& config,
                                                                   const runtime::ModelConfig& model,
                                                                   runtime::Device& device,
                                                                   std::shared_ptr<comm::Communicator> group,
                                                                   std::unique_ptr<BatchSource> source);

}  // namespace cohort::parallel
