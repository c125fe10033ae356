// Ulysses: ranks exchange tokens for heads, compute attention of theirs, and exchange back. Alone it sees whole sequences;
// in the two-dimensional mix (USP: Fang & Zhao, 2024) the heads of a block of tokens go on in a ring.
#pragma once

#include <map>
#include <memory>
#include <utility>

#include "parallel/sequence/head_exchange.h"
#include "runtime/model/spread.h"

namespace cohort::parallel {

class UlyssesCore final : public runtime::AttentionCore {
 public:
  // The group's ranks hold `tokens` of the block each. `inner` computes attention of the block's tokens for the heads
  // of this rank.
  UlyssesCore(ContextGroup group, std::vector<int64_t> tokens, BlockLayout block,
              std::shared_ptr<AttentionCore> inner);

  // INVALID_ARGUMENT where the group's size does not divide the query heads.
  absl::StatusOr<runtime::Tensor> Forward(const runtime::Tensor& q, const runtime::Tensor& k,
                                          const runtime::Tensor& v, double scale,
                                          std::unique_ptr<Saved>* saved) override;
  absl::Status Backward(const runtime::Tensor& dy, Saved& saved, const runtime::Tensor& dq,
                        const runtime::Tensor& dk, const runtime::Tensor& dv) override;

 private:
  struct Exchanges {
    HeadExchange queries, keys;
  };
  // Made when first needed: models have one number of heads.
  absl::StatusOr<const Exchanges*> For(int64_t heads, int64_t kv_heads, runtime::Device& device);

  const ContextGroup group_;
  const std::vector<int64_t> tokens_;
  const BlockLayout block_;
  const std::shared_ptr<AttentionCore> inner_;
  std::map<std::pair<int64_t, int64_t>, std::unique_ptr<const Exchanges>> exchanges_;  // by numbers of heads
};

}  // namespace cohort::parallel
