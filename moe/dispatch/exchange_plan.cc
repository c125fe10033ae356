#include "moe/dispatch/exchange_plan.h"

#include "comm/check.h"

namespace cohort::moe {

ExchangePlan MakeExchangePlan(absl::Span<const int32_t> send_offsets,
                              absl::Span<const int32_t> receive_counts, int ranks) {
  const int64_t experts = static_cast<int64_t>(send_offsets.size()) - 1, local = experts / ranks;
  COHORT_CHECK(local * ranks == experts && static_cast<int64_t>(receive_counts.size()) == experts,
               "%ld experts over %d ranks with %zu counts", static_cast<long>(experts), ranks,
               receive_counts.size());
  ExchangePlan plan;
  plan.send_rows.resize(ranks);
  plan.receive_rows.resize(ranks, 0);
  plan.offsets.assign(local + 1, 0);
  // first[r * local + e]: where, in order of arrival, the rows from rank r for expert e begin.
  std::vector<int32_t> first(experts);
  int32_t arrived = 0;
  for (int r = 0; r < ranks; ++r) {
    plan.send_rows[r] = send_offsets[(r + 1) * local] - send_offsets[r * local];
    for (int64_t e = 0; e < local; ++e) {
      const int32_t count = receive_counts[r * local + e];
      first[r * local + e] = arrived;
      arrived += count;
      plan.receive_rows[r] += count;
      plan.offsets[e + 1] += count;
    }
  }
  plan.by_expert.reserve(arrived);
  plan.by_rank.resize(arrived);
  for (int64_t e = 0; e < local; ++e) {
    plan.offsets[e + 1] += plan.offsets[e];
    for (int r = 0; r < ranks; ++r) {
      for (int32_t i = 0; i < receive_counts[r * local + e]; ++i) {
        const int32_t place = first[r * local + e] + i;
        plan.by_rank[place] = static_cast<int32_t>(plan.by_expert.size());
        plan.by_expert.push_back(place);
      }
    }
  }
  return plan;
}

}  // namespace cohort::moe
