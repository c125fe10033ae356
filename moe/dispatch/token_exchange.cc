#include "moe/dispatch/token_exchange.h"

#include <numeric>

#include "comm/check.h"
#include "runtime/metrics/waited.h"
#include "runtime/ops/ops.h"

namespace cohort::moe {

using runtime::Device;
using runtime::Tensor;

namespace {

// Rows as elements.
std::vector<size_t> Elements(const std::vector<int64_t>& rows, int64_t width) {
  std::vector<size_t> elements;
  elements.reserve(rows.size());
  for (const int64_t n : rows) elements.push_back(static_cast<size_t>(n * width));
  return elements;
}

RowsInFlight StartExchange(comm::Communicator& communicator, const Tensor& rows,
                           const std::vector<int64_t>& send_rows, const std::vector<int64_t>& receive_rows) {
  const int64_t width = rows.dim(1);
  const int64_t arriving = std::accumulate(receive_rows.begin(), receive_rows.end(), int64_t{0});
  RowsInFlight flight{.sent = rows,
                      .received = Tensor::Empty(rows.device(), {arriving, width}, rows.dtype()),
                      .work = comm::Work()};
  rows.device().Synchronize();
  flight.work = communicator.AllToAllV(rows.raw(), Elements(send_rows, width), flight.received.raw(),
                                       Elements(receive_rows, width), rows.dtype());
  return flight;
}

Tensor Permuted(const Tensor& rows, const Tensor& order) {
  const Tensor y = Tensor::Empty(rows.device(), rows.shape(), rows.dtype());
  rows.device().ops().GatherRows(rows, order, y);
  return y;
}

}  // namespace

std::vector<int32_t> HostIndices(const Tensor& tensor) {
  const std::vector<double> values = ToHost(tensor);
  return {values.begin(), values.end()};
}

absl::StatusOr<TokenExchange> TokenExchange::Create(const ExpertGroup& group, const Tensor& sorted_offsets,
                                                    std::optional<int64_t> sorted_rows) {
  TokenExchange exchange;
  exchange.group_ = &group;
  if (group.size() == 1) {
    exchange.sorted_rows_ = sorted_rows.has_value() ? *sorted_rows : HostIndices(sorted_offsets).back();
    exchange.expert_rows_ = exchange.sorted_rows_;
    exchange.runs_ = {{0, exchange.expert_rows_, sorted_offsets}};
    return exchange;
  }
  const std::vector<int32_t> offsets = HostIndices(sorted_offsets);
  exchange.sorted_rows_ = offsets.back();
  const size_t experts = offsets.size() - 1;
  std::vector<int32_t> send_counts(experts), receive_counts(experts);
  for (size_t e = 0; e < experts; ++e) send_counts[e] = offsets[e + 1] - offsets[e];
  {
    const runtime::WaitScope waits("wait for tokens");
    COHORT_RETURN_IF_ERROR(group.communicator()
                               .AllToAll(send_counts.data(), receive_counts.data(),
                                         experts / static_cast<size_t>(group.size()), DataType::kI32)
                               .Wait());
  }
  const ExchangePlan plan = MakeExchangePlan(offsets, receive_counts, group.size());
  Device& device = sorted_offsets.device();
  exchange.expert_rows_ = plan.arrived();
  exchange.send_rows_ = plan.send_rows;
  exchange.receive_rows_ = plan.receive_rows;
  const auto indices = [&](const std::vector<int32_t>& values) {
    return Tensor::FromHost(device, {static_cast<int64_t>(values.size())}, absl::MakeConstSpan(values));
  };
  if (group.apart()) {
    const auto local = experts / static_cast<size_t>(group.size());
    int64_t begin = 0;
    for (size_t rank = 0; rank < plan.receive_rows.size(); ++rank) {
      std::vector<int32_t> of_rank(local + 1, 0);
      for (size_t e = 0; e < local; ++e) of_rank[e + 1] = of_rank[e] + receive_counts[rank * local + e];
      exchange.runs_.push_back({begin, begin + plan.receive_rows[rank], indices(of_rank)});
      begin += plan.receive_rows[rank];
    }
    return exchange;
  }
  exchange.runs_ = {{0, plan.arrived(), indices(plan.offsets)}};
  exchange.by_expert_ = indices(plan.by_expert);
  exchange.by_rank_ = indices(plan.by_rank);
  return exchange;
}

RowsInFlight TokenExchange::StartToExperts(const Tensor& sorted) const {
  if (local()) return {.sent = sorted, .received = sorted, .work = comm::Work()};
  return StartExchange(group_->over_device(), sorted, send_rows_, receive_rows_);
}

absl::StatusOr<Tensor> TokenExchange::FinishToExperts(RowsInFlight rows) const {
  {
    const runtime::WaitScope waits("wait for tokens");
    COHORT_RETURN_IF_ERROR(rows.work.Wait());
  }
  return by_expert_.defined() ? Permuted(rows.received, by_expert_) : rows.received;
}

RowsInFlight TokenExchange::StartFromExperts(const Tensor& by_expert) const {
  if (local()) return {.sent = by_expert, .received = by_expert, .work = comm::Work()};
  return StartExchange(group_->over_device(), by_rank_.defined() ? Permuted(by_expert, by_rank_) : by_expert,
                       receive_rows_, send_rows_);
}

absl::StatusOr<Tensor> TokenExchange::FinishFromExperts(RowsInFlight rows) const {
  const runtime::WaitScope waits("wait for tokens");
  COHORT_RETURN_IF_ERROR(rows.work.Wait());
  return rows.received;
}

}  // namespace cohort::moe
