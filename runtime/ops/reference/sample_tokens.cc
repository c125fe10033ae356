// Sampling by its definition: the tokens in order, the filters one after another, the draw in f64.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "runtime/ops/check_sampling.h"
#include "runtime/ops/reference/reference_ops.h"
#include "runtime/random/philox.h"

namespace cohort::runtime {
namespace {

int32_t Sample(const double* x, int64_t v, const RowSampling& row) {
  if (!std::all_of(x, x + v, [](double value) { return value < INFINITY; })) return kBrokenLogits;
  std::vector<int32_t> order(v);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return x[a] > x[b]; });
  if (v == 0 || x[order[0]] == -INFINITY) return kNothingToDraw;
  if (row.temperature < kGreedyTemperature) return order[0];

  const double largest = x[order[0]], temperature = row.temperature;
  const auto weight = [&](int32_t i) { return std::exp((x[i] - largest) / temperature); };
  if (row.top_k > 0 && row.top_k < v) order.resize(row.top_k);
  if (row.top_p < 1) {
    double mass = 0, reached = 0;
    for (int32_t i : order) mass += weight(i);
    size_t kept = 0;
    do reached += weight(order[kept++]);
    while (kept < order.size() && reached < mass * row.top_p);
    order.resize(kept);
  }
  if (row.min_p > 0) {
    const double least = largest + temperature * std::log(row.min_p);
    while (order.size() > 1 && x[order.back()] < least) order.pop_back();
  }

  std::sort(order.begin(), order.end());
  double total = 0;
  for (int32_t i : order) total += weight(i);
  const auto bits = RandomBits(row.seed, RandomPurpose::kSampling, row.position, row.stream);
  double left = UniformDouble(bits[0], bits[1]) * total;
  int32_t last = order[0];
  for (int32_t i : order) {
    if (weight(i) == 0) continue;
    last = i;
    left -= weight(i);
    if (left < 0) break;
  }
  return last;
}

}  // namespace

void ReferenceOps::SampleTokens(const Tensor& logits, const SamplingRows& rows, const Tensor& tokens,
                                const Tensor& logprobs, const Tensor& ranks) {
  CheckSampling(logits, rows, tokens, logprobs, ranks);
  const int64_t v = logits.dim(1);
  for (int64_t r = 0; r < logits.dim(0); ++r) {
    const double* x = logits.data<double>() + r * v;
    const int32_t token = Sample(x, v, RowOf<double>(rows, r));
    tokens.data<int32_t>()[r] = token;
    if (!logprobs.defined()) continue;
    double sum = 0, rank = 0;
    for (int64_t i = 0; i < v && token >= 0; ++i) {
      sum += std::exp(x[i] - x[token]);
      rank += x[i] > x[token] || (x[i] == x[token] && i <= token);
    }
    logprobs.data<double>()[r] = token < 0 ? 0 : -std::log(sum);
    ranks.data<int32_t>()[r] = static_cast<int32_t>(rank);
  }
}

}  // namespace cohort::runtime
