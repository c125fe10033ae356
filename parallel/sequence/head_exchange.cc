#include "parallel/sequence/head_exchange.h"

#include <algorithm>
#include <utility>

#include "comm/check.h"
#include "parallel/sequence/policy.h"
#include "runtime/ops/ops.h"

namespace cohort::parallel {

using runtime::Device;
using runtime::Tensor;

namespace {

Tensor IndexTensor(Device& device, const std::vector<int32_t>& values) {
  return Tensor::FromHost(device, {static_cast<int64_t>(values.size())}, absl::MakeConstSpan(values));
}

}  // namespace

HeadExchange::HeadExchange(const ContextGroup& group, std::vector<std::vector<int64_t>> heads, int64_t count,
                           std::vector<int64_t> tokens, const BlockLayout& block, Device& device)
    : group_(group),
      heads_(std::move(heads)),
      count_(count),
      tokens_(std::move(tokens)),
      block_tokens_(block.tokens()),
      sources_(IndexTensor(device, block.sources)),
      block_places_(IndexTensor(device, block.places)) {
  const int64_t own = tokens_[group.rank];
  std::vector<std::vector<int32_t>> places(own * count);
  std::vector<int32_t> by_part;
  for (const auto& part : heads_) {
    for (int64_t t = 0; t < own; ++t) {
      for (const int64_t head : part) {
        places[t * count + head].push_back(static_cast<int32_t>(by_part.size()));
        by_part.push_back(static_cast<int32_t>(t * count + head));
      }
    }
  }
  size_t most = 1;
  for (const auto& copies : places) most = std::max(most, copies.size());
  std::vector<int32_t> flat;
  for (auto& copies : places) {
    copies.resize(most, -1);
    flat.insert(flat.end(), copies.begin(), copies.end());
  }
  by_part_ = IndexTensor(device, by_part);
  places_ = IndexTensor(device, flat).View({own * count, static_cast<int64_t>(most)});
}

// packed: rows by destination. To heads, part p of this rank's tokens goes to p; to tokens, rank r's tokens go to r.
HeadExchange::Flight HeadExchange::Start(const Tensor& packed, bool to_heads, int64_t width) const {
  const int n = group_.size(), me = group_.rank;
  // Elements from a to b.
  const auto count = [&](int a, int b) {
    return static_cast<size_t>((to_heads ? tokens_[a] * part(b) : tokens_[b] * part(a)) * width);
  };
  size_t total = 0;
  for (int from = 0; from < n; ++from) total += count(from, me);
  Flight flight{
      width, packed, Tensor::Empty(packed.device(), {static_cast<int64_t>(total)}, packed.dtype()), {}};
  packed.device().Synchronize();
  const DataType dtype = packed.dtype();
  if (group_.IsWhole()) {  // its algorithms know hosts
    std::vector<size_t> matrix(n * n);
    for (int a = 0; a < n; ++a) {
      for (int b = 0; b < n; ++b) matrix[a * n + b] = count(a, b);
    }
    flight.works.push_back(group_.comm->AllToAllMatrix(packed.raw(), flight.received.raw(), matrix, dtype));
    return flight;
  }
  const auto at = [&](const Tensor& tensor, size_t element) {
    return static_cast<char*>(tensor.raw()) + element * SizeOf(dtype);
  };
  size_t place = 0, own_place = 0, send_place = 0;
  for (int from = 0; from < n; ++from) {
    if (from == me) {
      own_place = place;
    } else {
      flight.works.push_back(group_.comm->Recv(at(flight.received, place), count(from, me), dtype,
                                               group_.members[from], policy::kHeadsTag));
    }
    place += count(from, me);
  }
  for (int to = 0; to < n; ++to) {
    const auto first = static_cast<int64_t>(send_place), size = static_cast<int64_t>(count(me, to));
    if (to == me) {
      packed.device().ops().Copy(
          packed.View({-1}).Slice(first, first + size),
          flight.received.Slice(static_cast<int64_t>(own_place), static_cast<int64_t>(own_place) + size));
    } else {
      flight.works.push_back(group_.comm->Send(at(packed, send_place), count(me, to), dtype,
                                               group_.members[to], policy::kHeadsTag));
    }
    send_place += count(me, to);
  }
  return flight;
}

HeadExchange::Flight HeadExchange::StartToHeads(const Tensor& x) const {
  const int64_t width = x.dim(2);
  const Tensor packed = Tensor::Empty(x.device(), {by_part_.size(), width}, x.dtype());
  x.device().ops().GatherRows(x.View({x.dim(0) * count_, width}), by_part_, packed);
  return Start(packed, true, width);
}

absl::StatusOr<Tensor> HeadExchange::FinishToHeads(Flight flight) const {
  COHORT_RETURN_IF_ERROR(WaitForAll(flight.works));
  const int64_t mine = part(group_.rank), row = mine * flight.width;
  const Tensor heads = Tensor::Empty(flight.received.device(), {block_tokens_, row}, flight.received.dtype());
  flight.received.device().ops().GatherRows(flight.received.View({block_tokens_, row}), sources_, heads);
  return heads.View({block_tokens_, mine, flight.width});
}

HeadExchange::Flight HeadExchange::StartToTokens(const Tensor& x) const {
  const int64_t row = x.dim(1) * x.dim(2);
  const Tensor packed = Tensor::Empty(x.device(), {block_tokens_, row}, x.dtype());
  x.device().ops().GatherRows(x.View({block_tokens_, row}), block_places_, packed);
  return Start(packed, false, x.dim(2));
}

absl::Status HeadExchange::FinishToTokens(Flight flight, const Tensor& y) const {
  COHORT_RETURN_IF_ERROR(WaitForAll(flight.works));
  const int64_t width = y.dim(2);
  const Tensor rows = flight.received.View({by_part_.size(), width}),
               out = y.View({y.dim(0) * count_, width});
  if (places_.dim(1) == 1) {
    y.device().ops().GatherRows(rows, places_.View({places_.dim(0)}), out);
  } else {
    y.device().ops().CombineRows(rows, places_, Tensor(), out);
  }
  return absl::OkStatus();
}

}  // namespace cohort::parallel
