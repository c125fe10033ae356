#include "parallel/sequence/context_attention.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/sequence/ulysses_core.h"

namespace cohort::parallel {

using runtime::Tensor;

absl::StatusOr<std::shared_ptr<runtime::AttentionCore>> MakeContextAttention(const ContextGroup& group,
                                                                             const TokenSplit& split,
                                                                             ContextWays ways,
                                                                             runtime::Device& device,
                                                                             AttentionSeconds* seconds) {
  const int n = group.size(), parts = ways.forward.head_parts;
  if (split.ranks() != n) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequences split over ", split.ranks(), " ranks for a context group of ", n));
  }
  if (parts < 1 || n % parts != 0 || ways.backward.head_parts != parts) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a context group of ", n, " ranks, of which ", parts, " exchange heads in the forward and ",
        ways.backward.head_parts, " in the backward: the same number, that divides those"));
  }
  const int blocks = n / parts, block = group.rank / parts;
  std::vector<BlockLayout> layouts;
  for (int b = 0; b < blocks; ++b) layouts.push_back(LayoutOf(split, b * parts, parts));
  const PairTable pairs(split, parts);
  COHORT_ASSIGN_OR_RETURN(AttentionPlan forward,
                          MakeAttentionPlan(Pass::kForward, {ways.forward.moves, 1}, blocks, pairs));
  COHORT_ASSIGN_OR_RETURN(AttentionPlan backward,
                          MakeAttentionPlan(Pass::kBackward, {ways.backward.moves, 1}, blocks, pairs));
  std::shared_ptr<runtime::AttentionCore> core =
      std::make_shared<RingCore>(group.Part(group.rank % parts, blocks, parts), layouts, std::move(forward),
                                 std::move(backward), device, seconds);
  if (parts == 1) return core;
  std::vector<int64_t> tokens;
  for (int i = 0; i < parts; ++i) tokens.push_back(split.tokens(block * parts + i));
  return std::make_shared<UlyssesCore>(group.Part(block * parts, parts, 1), std::move(tokens), layouts[block],
                                       std::move(core));
}

runtime::TokenBatch BatchOfRank(const runtime::TokenBatch& whole, const TokenSplit& split, int rank) {
  COHORT_CHECK(whole.num_tokens() == split.total_tokens() && whole.num_sequences() == split.sequences(),
               "a batch of %ld tokens where %ld were split", static_cast<long>(whole.num_tokens()),
               static_cast<long>(split.total_tokens()));
  const std::vector<int32_t> places = split.Places(rank), positions = split.Positions(rank);
  runtime::Device& device = whole.tokens.device();
  const auto tensor = [&](const std::vector<int32_t>& values) {
    return Tensor::FromHost(device, {static_cast<int64_t>(values.size())}, absl::MakeConstSpan(values));
  };
  const auto pick = [&](const Tensor& all) {
    const Tensor host = OnHost(all);
    std::vector<int32_t> values;
    for (const int32_t place : places) values.push_back(host.data<int32_t>()[place]);
    return tensor(values);
  };
  runtime::TokenBatch batch;
  batch.tokens = pick(whole.tokens);
  batch.targets = pick(whole.targets);
  batch.positions = tensor(positions);
  batch.host_offsets = split.Offsets(rank);
  batch.offsets = tensor(batch.host_offsets);
  return batch;
}

}  // namespace cohort::parallel
