// Attention of blocks that meet in a ring: ring attention and TokenRing, whatever the plan says.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "parallel/sequence/attention_plan.h"
#include "parallel/sequence/block_layout.h"
#include "parallel/sequence/context_group.h"
#include "runtime/model/spread.h"

namespace cohort::parallel {

// Where the time went, added up over calls.
struct AttentionSeconds {
  double compute = 0;  // processor time of the calling thread in the device's operations
  double waiting = 0;  // for others, with nothing to compute; by the clock
};

// Keys of a block as AttentionPart wants them: rows [begin, end).
struct RingKeys {
  int64_t begin = 0, end = 0;
  runtime::Tensor offsets, positions;  // [S + 1], [end - begin]
};

// What both passes of a rank know.
struct RingParts {
  ContextGroup group;
  std::vector<RingKeys> blocks;  // whole
  RingKeys earlier, later;       // of this rank's own block: Portion
  AttentionSeconds* seconds = nullptr;
  const RingKeys& KeysOf(const Computation& compute) const;
  int64_t tokens(int block) const { return blocks[block].end; }
};

// Walks the plan of each pass: transfers of a step are under way while it computes. Outputs and gradients of parts are
// added in the device's state type. One thread; all members of the group make the same calls.
class RingCore final : public runtime::AttentionCore {
 public:
  // The members hold blocks[rank] of the same sequences. Plans are of head_parts 1 over as many ranks. `seconds` may be
  // null.
  RingCore(ContextGroup group, const std::vector<BlockLayout>& blocks, AttentionPlan forward,
           AttentionPlan backward, runtime::Device& device, AttentionSeconds* seconds);

  absl::StatusOr<runtime::Tensor> Forward(const runtime::Tensor& q, const runtime::Tensor& k,
                                          const runtime::Tensor& v, double scale,
                                          std::unique_ptr<Saved>* saved) override;
  absl::Status Backward(const runtime::Tensor& dy, Saved& saved, const runtime::Tensor& dq,
                        const runtime::Tensor& dk, const runtime::Tensor& dv) override;

 private:
  RingParts parts_;
  const AttentionPlan forward_, backward_;
};

}  // namespace cohort::parallel
