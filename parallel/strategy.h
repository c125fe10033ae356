// Strategies: how the parameters of one placement are spread over ranks, and what moves because of it.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "parallel/mesh_communicators.h"
#include "runtime/model/decoder.h"

namespace cohort::parallel {

// A strategy owns the buckets of one placement in every parameter group. All ranks call the same strategies
// in the same order. One thread.
class Strategy {
 public:
  virtual ~Strategy() = default;

  virtual const char* name() const = 0;
  virtual runtime::Placement placement() const = 0;

  // Before the model is made: what its layers must know of the arrangement.
  virtual void Configure(runtime::DecoderOptions& options) const {}

  // The last gradients of the step are in this bucket: starts to make them those of the whole global batch.
  // Returns at once; the bucket's grad must not be touched before FinishGradients.
  virtual void GradientsReady(const runtime::ParameterBucket& bucket) = 0;
  // Waits for all that was started; also after an error, so that nothing is under way when it returns.
  virtual absl::Status FinishGradients() = 0;

  // Ranks that hold the same parameters of this placement, and this rank's place among them. They
  // update them with equal gradients to equal values; one of them counts them in sums over the model
  // and writes them to disk.
  virtual int replicas() const = 0;
  virtual int replica() const = 0;
};

// The strategies of a mesh, one for each placement.
std::vector<std::unique_ptr<Strategy>> MakeStrategies(const MeshCommunicators& groups);

}  // namespace cohort::parallel
