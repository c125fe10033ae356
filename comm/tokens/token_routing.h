// Token dispatch and combine of a mixture of experts: each token goes to the ranks of its experts, and what these make
// of it comes back as one sum.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "comm/communicator.h"
#include "comm/operation.h"
#include "comm/tokens/routes.h"

namespace cohort::comm {

// Where the tokens of this rank go.
struct TokenChoices {
  // experts[t * k + j]: the j-th expert of token t; -1: none. Ranks may have different numbers of tokens.
  absl::Span<const int32_t> experts;
  int k = 1;
  // As experts: what travels with them; empty: ones.
  absl::Span<const float> weights;
  // By expert, its rank. The same on all ranks, as is k.
  absl::Span<const int32_t> rank_of_expert;
};

// One expert of this rank that wants a row, and how much it counts.
struct RoutedExpert {
  int32_t expert = 0;
  float weight = 0;
};

// One routing of a group's tokens: made once where the gate has chosen, used for the dispatch and the combine, and the
// other way round for their gradients (that of a dispatch is the combine of the gradients, and the reverse). A token
// crosses to each host at most once, and one row a host comes back: routes.h.
//
// Rows have `width` elements, the same on all ranks in one call; any data type, so bytes of a quantized row too. In a
// combine they are summed as an all-reduce sums. All ranks make, dispatch and combine in the same order as the group's
// other operations. The group must outlive the routing, which ends with an edit of the group. Thread-safe.
class TokenRouting {
 public:
  // Collective: ranks tell each other what they must know. INVALID_ARGUMENT on all ranks where one brings something
  // wrong, or where they differ in k or rank_of_expert.
  static absl::StatusOr<std::unique_ptr<TokenRouting>> Create(Communicator& group,
                                                              const TokenChoices& choices);

  size_t num_tokens() const { return routes_.own.size(); }
  // Rows that a dispatch brings to this rank: one a token, however many of its experts are here. They lie by source,
  // and for each source in the order of its tokens.
  size_t num_received() const { return rows_.size(); }
  // By source, how many of them.
  absl::Span<const size_t> received_from() const { return routes_.received; }
  int32_t source(size_t row) const { return rows_[row].source; }
  // The token's number at its source.
  int32_t token(size_t row) const { return rows_[row].token; }
  // The row's experts on this rank, in the order of the token's list.
  absl::Span<const RoutedExpert> experts(size_t row) const {
    const size_t end = row + 1 < rows_.size() ? rows_[row + 1].first_expert : experts_.size();
    return absl::MakeConstSpan(experts_).subspan(rows_[row].first_expert, end - rows_[row].first_expert);
  }
  // Rows that this rank sends to other hosts in a dispatch.
  size_t num_crossing() const { return routes_.num_crossing(); }

  // received[row] = tokens[t]: num_tokens() rows become num_received(). Not in place.
  Work Dispatch(const void* tokens, void* received, size_t width, DataType dtype);
  // tokens[t] = the sum of what the ranks of its experts have in `received` for it (each its own experts' outputs times
  // their weights); zero where it went nowhere. Not in place.
  Work Combine(const void* received, void* tokens, size_t width, DataType dtype);

 private:
  struct Row {
    int32_t source, token;
    size_t first_expert;
  };
  using Schedules = std::pair<std::shared_ptr<const Schedule>, std::shared_ptr<const Schedule>>;

  explicit TokenRouting(Communicator& group) : group_(group), epoch_(group.epoch()) {}
  absl::Status Exchange(const TokenChoices& choices, const absl::Status& valid);
  absl::Status ReadRoutes(int source, absl::Span<const int32_t> words, size_t passing_words);
  Work Move(Operation operation, const void* from, void* to, size_t width, DataType dtype);

  Communicator& group_;
  const uint32_t epoch_;
  TokenRoutes routes_;
  std::vector<Row> rows_;
  std::vector<RoutedExpert> experts_;
  uint32_t digest_ = 0;  // of what must be equal on all ranks

  std::mutex mutex_;
  size_t width_ = 0;  // of schedules_
  Schedules schedules_;
};

// What Communicator::MoveTokens is called with.
struct TokenCall {
  Operation operation;
  std::shared_ptr<const Schedule> schedule;
  uint32_t digest;
  const void* send;
  void* recv;
  size_t width;
  DataType dtype;
};

}  // namespace cohort::comm
