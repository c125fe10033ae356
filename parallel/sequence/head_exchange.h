// Tokens for heads: the all-to-alls of Ulysses (Jacobs et al., 2023) and the moves of rows before and after them.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/sequence/block_layout.h"
#include "parallel/sequence/context_group.h"
#include "parallel/sequence/head_parts.h"
#include "runtime/tensor.h"

namespace cohort::parallel {

// Between "this rank's tokens, all heads" [T, heads, C] and "the block's tokens, this rank's heads" [N, part, C]. Made
// for one kind of heads: query heads, or key/value heads, of which several parts may want the same one.
class HeadExchange {
 public:
  // heads[p]: what part p gets, indices into [0, count), ascending. tokens[r]: of each rank of the group.
  HeadExchange(const ContextGroup& group, std::vector<std::vector<int64_t>> heads, int64_t count,
               std::vector<int64_t> tokens, const BlockLayout& block, runtime::Device& device);

  // An all-to-all under way.
  struct Flight {
    int64_t width;  // C
    runtime::Tensor sent, received;
    std::vector<comm::Work> works;
  };
  // x [T, heads, C].
  Flight StartToHeads(const runtime::Tensor& x) const;
  // [N, part, C] in the block's order.
  absl::StatusOr<runtime::Tensor> FinishToHeads(Flight flight) const;
  // x [N, part, C].
  Flight StartToTokens(const runtime::Tensor& x) const;
  // y [T, heads, C]: for a head that several parts had, the sum of theirs.
  absl::Status FinishToTokens(Flight flight, const runtime::Tensor& y) const;

 private:
  int64_t part(int p) const { return static_cast<int64_t>(heads_[p].size()); }
  Flight Start(const runtime::Tensor& packed, bool to_heads, int64_t width) const;

  const ContextGroup& group_;
  const std::vector<std::vector<int64_t>> heads_;
  const int64_t count_;
  const std::vector<int64_t> tokens_;
  const int64_t block_tokens_;
  runtime::Tensor by_part_;  // rows (t, head) of x in order of part: [sum over p of T part(p)]
  runtime::Tensor places_;   // of each row (t, head) of y, those in the rows by part: [T count, most copies]
  runtime::Tensor sources_, block_places_;  // BlockLayout's
};

}  // namespace cohort::parallel
