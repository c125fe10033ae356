// Runs an exchange plan: rows of tokens to the ranks that hold their experts, and back.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/work.h"
#include "moe/dispatch/exchange_plan.h"
#include "moe/expert_group.h"
#include "moe/expert_rows.h"
#include "runtime/tensor.h"

namespace cohort::moe {

// Rows under way. Holds both buffers.
struct RowsInFlight {
  runtime::Tensor sent, received;  // [rows, D]
  comm::Work work;
};

// The exchange of one batch's rows through one layer, in both directions and as often as needed (forward,
// backward). "sorted" rows are this rank's own, sorted by global expert; "by expert" rows are those that its
// experts got, sorted by expert, or, where the group keeps sources apart, as they come: by rank, and within a
// rank by expert. In a group of one they are the same rows, and nothing moves or is copied. Starting is
// collective over the group; between a start and its finish this rank can compute. Errors are the
// communicator's, naming lost ranks.
class TokenExchange {
 public:
  // sorted_offsets kI32 [experts + 1]: where each expert's rows begin among this rank's. Collective: ranks
  // tell each other their counts. sorted_rows: the last of these offsets, where it is known without reading them. In a
  // group of one nothing is read then: how many rows each expert has stays on the device, where the products find it.
  static absl::StatusOr<TokenExchange> Create(const ExpertGroup& group, const runtime::Tensor& sorted_offsets,
                                              std::optional<int64_t> sorted_rows = std::nullopt);

  // Rows of this rank's own tokens; rows that its experts got.
  int64_t sorted_rows() const { return sorted_rows_; }
  int64_t expert_rows() const { return expert_rows_; }
  // Of the rows that its experts got: one run, or one for each source rank.
  const std::vector<ExpertRows>& runs() const { return runs_; }

  // [sorted_rows, D] sorted -> [expert_rows, D] by expert.
  RowsInFlight StartToExperts(const runtime::Tensor& sorted) const;
  absl::StatusOr<runtime::Tensor> FinishToExperts(RowsInFlight rows) const;
  // [expert_rows, D] by expert -> [sorted_rows, D] sorted.
  RowsInFlight StartFromExperts(const runtime::Tensor& by_expert) const;
  absl::StatusOr<runtime::Tensor> FinishFromExperts(RowsInFlight rows) const;

 private:
  TokenExchange() = default;
  bool local() const { return group_->size() == 1; }

  const ExpertGroup* group_ = nullptr;
  int64_t sorted_rows_ = 0, expert_rows_ = 0;
  std::vector<ExpertRows> runs_;
  std::vector<int64_t> send_rows_, receive_rows_;
  runtime::Tensor by_expert_, by_rank_;  // kI32 [expert_rows]; undefined where rows stay as they come
};

// An index tensor's values on the host.
std::vector<int32_t> HostIndices(const runtime::Tensor& tensor);

}  // namespace cohort::moe
