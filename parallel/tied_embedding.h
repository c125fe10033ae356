// Tied embeddings whose two uses are in two stages of a pipeline: the embedding and the head's copy of it
// (runtime::DecoderPart::head_copy).
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "parallel/pipeline_plan.h"
#include "runtime/device/device.h"
#include "runtime/tensor.h"

namespace cohort::parallel {

// Both stages split them alike, so that this rank's piece of the one is the piece of its counterpart of the other. They
// start alike, since their values come from one name; with the sum of both gradients, which is made once a step and has
// the same bits on both sides, the optimizer updates them alike.
class TiedEmbedding {
 public:
  // Collective over `pipeline`. Null where this rank has neither of the two, or there is one alone.
  static absl::StatusOr<std::unique_ptr<TiedEmbedding>> Connect(const PipelinePlan& plan, bool deterministic,
                                                                comm::Communicator& pipeline,
                                                                runtime::Device& device);

  // Each becomes the sum of both. Undefined: it is on the other rank.
  absl::Status Sum(runtime::Device& device, const runtime::Tensor& embedding, const runtime::Tensor& copy);

 private:
  explicit TiedEmbedding(std::shared_ptr<comm::Communicator> both) : both_(std::move(both)) {}

  const std::shared_ptr<comm::Communicator> both_;  // over the device's memory; null: this rank has both
};

}  // namespace cohort::parallel
