#include "runtime/model/half_stream.h"

#include <algorithm>
#include <utility>

#include "absl/types/span.h"
#include "comm/check.h"
#include "runtime/ops/ops.h"

namespace cohort::runtime {

Tensor Stream::AddAndNormalize(const Parameter& weight, double eps, Tensor& rstd) {
  Device& device = base.device();
  const Tensor y = Tensor::Empty(device, base.shape(), base.dtype());
  rstd = Tensor::Empty(device, {base.dim(0)}, device.state_dtype());
  if (delta.defined()) {
    device.ops().AddRmsNorm(delta, base, weight.value, eps, delta, y, rstd);
    base = std::move(delta);
    delta = Tensor();
  } else {
    device.ops().RmsNorm(base, weight.value, eps, y, rstd);
  }
  return y;
}

StreamRows RowsOfBatch(const TokenBatch& batch, const TensorGroup& tensor) {
  StreamRows rows;
  int64_t here = 0, tokens = 0;
  std::vector<int32_t> offsets(batch.host_offsets.size(), 0);
  const auto add = [&](const TokenBatch& half) {
    const RowRange mine = RowsOf(half.num_tokens(), tensor.rank(), tensor.size());
    for (size_t s = 0; s < offsets.size(); ++s) {
      offsets[s] +=
          static_cast<int32_t>(std::clamp(batch.host_offsets[s] - tokens, mine.begin, mine.end) - mine.begin);
    }
    rows.halves.push_back({half, {here, here + mine.size()}});
    here += mine.size();
    tokens += half.num_tokens();
  };
  if (batch.halves.empty()) add(batch);
  for (const TokenBatch& half : batch.halves) add(half);
  COHORT_CHECK(tokens == batch.num_tokens(), "halves of %ld tokens of a batch of %ld",
               static_cast<long>(tokens), static_cast<long>(batch.num_tokens()));
  rows.offsets = tensor.size() == 1 ? batch.offsets
                                    : Tensor::FromHost(batch.tokens.device(), batch.offsets.shape(),
                                                       absl::MakeConstSpan(offsets));
  return rows;
}

int64_t LocalRows(const TokenBatch& batch, const TensorGroup& tensor) {
  const auto local = [&](const TokenBatch& b) {
    return RowsOf(b.num_tokens(), tensor.rank(), tensor.size()).size();
  };
  if (batch.halves.empty()) return local(batch);
  int64_t rows = 0;
  for (const TokenBatch& half : batch.halves) rows += local(half);
  return rows;
}

void HalfStream::Send(TensorGroup& tensor) {
  if (!summand.defined()) return;
  delta.emplace(tensor.StartReduceScatterRows(std::exchange(summand, {})));
}

absl::Status HalfStream::Arrive(TensorGroup& tensor) {
  Send(tensor);
  if (!delta.has_value()) return absl::OkStatus();
  COHORT_ASSIGN_OR_RETURN(stream.delta, delta->Arrive());
  delta.reset();
  return absl::OkStatus();
}

Tensor Join(const std::vector<Tensor>& halves) {
  if (halves.size() == 1) return halves[0];
  int64_t rows = 0;
  for (const Tensor& half : halves) rows += half.dim(0);
  const Tensor all = Tensor::Empty(halves[0].device(), {rows, halves[0].dim(1)}, halves[0].dtype());
  rows = 0;
  for (const Tensor& half : halves) {
    half.device().ops().Copy(half, all.Slice(rows, rows + half.dim(0)));
    rows += half.dim(0);
  }
  return all;
}

}  // namespace cohort::runtime
