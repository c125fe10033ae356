#include "parallel/global_sums.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/metrics/waited.h"

namespace cohort::parallel {

using runtime::LossSums;

absl::Status SumOverRanks(comm::Communicator& ranks, absl::Span<int64_t> values) {
  const runtime::WaitScope waits("wait for sums");
  return ranks.AllReduce(values.data(), values.data(), values.size(), DataType::kI64, comm::ReduceOp::kSum)
      .Wait();
}

absl::Status SumOverRanks(comm::Communicator& ranks, absl::Span<double> values) {
  const runtime::WaitScope waits("wait for sums");
  return ranks.AllReduce(values.data(), values.data(), values.size(), DataType::kF64, comm::ReduceOp::kSum)
      .Wait();
}

absl::Status SumOverRanks(comm::Communicator& ranks, LossSums& sums) {
  // One message: counts are whole numbers far below 2^53, which f64 adds exactly.
  std::vector<double> packed = {sums.loss, sums.aux_loss, static_cast<double>(sums.tokens),
                                static_cast<double>(sums.dropped)};
  for (const auto& row : sums.expert_load) packed.insert(packed.end(), row.begin(), row.end());
  COHORT_RETURN_IF_ERROR(SumOverRanks(ranks, absl::MakeSpan(packed)));
  auto next = packed.begin();
  sums.loss = *next++;
  sums.aux_loss = *next++;
  sums.tokens = static_cast<int64_t>(*next++);
  sums.dropped = static_cast<int64_t>(*next++);
  for (auto& row : sums.expert_load) {
    for (int64_t& count : row) count = static_cast<int64_t>(*next++);
  }
  return absl::OkStatus();
}

absl::Status AgreeOnSuccess(comm::Communicator& ranks, const absl::Status& mine, const std::string& what) {
  int64_t failed = mine.ok() ? 0 : 1;
  COHORT_RETURN_IF_ERROR(SumOverRanks(ranks, absl::MakeSpan(&failed, 1)));
  if (failed == 0) return absl::OkStatus();
  COHORT_ASSIGN_OR_RETURN(const std::vector<std::string> messages,
                          GatherStrings(ranks, std::string(mine.ok() ? "" : mine.ToString())));
  if (!mine.ok()) return mine;
  for (size_t rank = 0; rank < messages.size(); ++rank) {
    if (messages[rank].empty()) continue;
    return absl::AbortedError(absl::StrCat(failed, failed == 1 ? " rank" : " ranks", " failed at ", what,
                                           "; rank ", rank, ": ", messages[rank]));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> GatherStrings(comm::Communicator& ranks, const std::string& mine) {
  const runtime::WaitScope waits("wait for texts");
  const int64_t size = static_cast<int64_t>(mine.size());
  std::vector<int64_t> sizes(ranks.size());
  const std::vector<size_t> one_each(ranks.size(), 1);
  COHORT_RETURN_IF_ERROR(ranks.AllGather(&size, sizes.data(), one_each, DataType::kI64).Wait());
  const std::vector<size_t> counts(sizes.begin(), sizes.end());
  size_t total = 0;
  for (const size_t count : counts) total += count;
  std::string all(total, '\0');
  COHORT_RETURN_IF_ERROR(ranks.AllGather(mine.data(), all.data(), counts, DataType::kU8).Wait());
  std::vector<std::string> strings;
  size_t begin = 0;
  for (const size_t count : counts) {
    strings.push_back(all.substr(begin, count));
    begin += count;
  }
  return strings;
}

}  // namespace cohort::parallel
