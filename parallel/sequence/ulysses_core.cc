#include "parallel/sequence/ulysses_core.h"

#include <numeric>

#include "comm/check.h"

namespace cohort::parallel {

using runtime::Device;
using runtime::Tensor;

namespace {

struct SavedHeads final : runtime::AttentionCore::Saved {
  std::unique_ptr<runtime::AttentionCore::Saved> inner;
  int64_t heads = 0, kv_heads = 0;            // of the model
  int64_t part_heads = 0, part_kv_heads = 0;  // of this rank
};

}  // namespace

UlyssesCore::UlyssesCore(ContextGroup group, std::vector<int64_t> tokens, BlockLayout block,
                         std::shared_ptr<AttentionCore> inner)
    : group_(std::move(group)),
      tokens_(std::move(tokens)),
      block_(std::move(block)),
      inner_(std::move(inner)) {}

absl::StatusOr<const UlyssesCore::Exchanges*> UlyssesCore::For(int64_t heads, int64_t kv_heads,
                                                               Device& device) {
  auto& exchanges = exchanges_[{heads, kv_heads}];
  if (exchanges != nullptr) return exchanges.get();
  COHORT_ASSIGN_OR_RETURN(const std::vector<HeadPart> parts, DivideHeads(heads, kv_heads, group_.size()));
  std::vector<std::vector<int64_t>> queries, keys;
  for (const HeadPart& part : parts) {
    queries.emplace_back(part.heads());
    std::iota(queries.back().begin(), queries.back().end(), part.begin);
    keys.push_back(part.kv);
  }
  exchanges = std::make_unique<const Exchanges>(
      Exchanges{HeadExchange(group_, std::move(queries), heads, tokens_, block_, device),
                HeadExchange(group_, std::move(keys), kv_heads, tokens_, block_, device)});
  return exchanges.get();
}

absl::StatusOr<Tensor> UlyssesCore::Forward(const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                                            std::unique_ptr<Saved>* saved) {
  COHORT_ASSIGN_OR_RETURN(const Exchanges* exchange, For(q.dim(1), k.dim(1), q.device()));
  auto q_flight = exchange->queries.StartToHeads(q);
  auto k_flight = exchange->keys.StartToHeads(k);
  auto v_flight = exchange->keys.StartToHeads(v);
  // All are waited for whatever happens: they write to memory that is freed here.
  const absl::StatusOr<Tensor> heads[] = {exchange->queries.FinishToHeads(std::move(q_flight)),
                                          exchange->keys.FinishToHeads(std::move(k_flight)),
                                          exchange->keys.FinishToHeads(std::move(v_flight))};
  for (const auto& each : heads) COHORT_RETURN_IF_ERROR(each.status());
  auto keep = std::make_unique<SavedHeads>();
  keep->heads = q.dim(1), keep->kv_heads = k.dim(1);
  keep->part_heads = heads[0]->dim(1), keep->part_kv_heads = heads[1]->dim(1);
  COHORT_ASSIGN_OR_RETURN(const Tensor part, inner_->Forward(*heads[0], *heads[1], *heads[2], scale,
                                                             saved == nullptr ? nullptr : &keep->inner));
  const Tensor y = Tensor::Empty(q.device(), q.shape(), q.dtype());
  COHORT_RETURN_IF_ERROR(exchange->queries.FinishToTokens(exchange->queries.StartToTokens(part), y));
  if (saved != nullptr) *saved = std::move(keep);
  return y;
}

absl::Status UlyssesCore::Backward(const Tensor& dy, Saved& saved, const Tensor& dq, const Tensor& dk,
                                   const Tensor& dv) {
  auto& kept = static_cast<SavedHeads&>(saved);
  COHORT_ASSIGN_OR_RETURN(const Exchanges* exchange, For(kept.heads, kept.kv_heads, dy.device()));
  COHORT_ASSIGN_OR_RETURN(const Tensor dy_part,
                          exchange->queries.FinishToHeads(exchange->queries.StartToHeads(dy)));
  const auto gradient = [&](int64_t heads, const Tensor& like) {
    return Tensor::Empty(dy.device(), {block_.tokens(), heads, dy.dim(2)}, like.dtype());
  };
  const Tensor dq_part = gradient(kept.part_heads, dq), dk_part = gradient(kept.part_kv_heads, dk),
               dv_part = gradient(kept.part_kv_heads, dv);
  COHORT_RETURN_IF_ERROR(inner_->Backward(dy_part, *kept.inner, dq_part, dk_part, dv_part));
  auto q_flight = exchange->queries.StartToTokens(dq_part);
  auto k_flight = exchange->keys.StartToTokens(dk_part);
  auto v_flight = exchange->keys.StartToTokens(dv_part);
  absl::Status status = exchange->queries.FinishToTokens(std::move(q_flight), dq);
  status.Update(exchange->keys.FinishToTokens(std::move(k_flight), dk));
  status.Update(exchange->keys.FinishToTokens(std::move(v_flight), dv));
  return status;
}

}  // namespace cohort::parallel
