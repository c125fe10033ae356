// The mixture-of-experts operations by their definitions, in f64.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "comm/check.h"
#include "runtime/ops/reference/reference_ops.h"

namespace cohort::runtime {

void ReferenceOps::Softmax(const Tensor& x, const Tensor& y) {
  const int64_t n = x.dim(1);
  for (int64_t t = 0; t < x.dim(0) && n > 0; ++t) {
    const double* in = x.data<double>() + t * n;
    double* out = y.data<double>() + t * n;
    const double top = *std::max_element(in, in + n);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += out[i] = std::exp(in[i] - top);
    for (int64_t i = 0; i < n; ++i) out[i] /= sum;
  }
}

void ReferenceOps::SoftmaxGrad(const Tensor& dy, const Tensor& y, const Tensor& dx) {
  const int64_t n = y.dim(1);
  for (int64_t t = 0; t < y.dim(0); ++t) {
    const double *g = dy.data<double>() + t * n, *p = y.data<double>() + t * n;
    double* out = dx.data<double>() + t * n;
    const double dot = std::inner_product(g, g + n, p, 0.0);
    for (int64_t i = 0; i < n; ++i) out[i] = p[i] * (g[i] - dot);
  }
}

void ReferenceOps::Sigmoid(const Tensor& x, const Tensor& y) {
  for (int64_t i = 0; i < x.size(); ++i) y.data<double>()[i] = 1 / (1 + std::exp(-x.data<double>()[i]));
}

void ReferenceOps::SigmoidGrad(const Tensor& dy, const Tensor& y, const Tensor& dx) {
  for (int64_t i = 0; i < y.size(); ++i) {
    const double p = y.data<double>()[i];
    dx.data<double>()[i] = dy.data<double>()[i] * p * (1 - p);
  }
}

void ReferenceOps::LogSumExp(const Tensor& x, const Tensor& lse) {
  const int64_t n = x.dim(1);
  for (int64_t t = 0; t < x.dim(0) && n > 0; ++t) {
    const double* in = x.data<double>() + t * n;
    const double top = *std::max_element(in, in + n);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(in[i] - top);
    lse.data<double>()[t] = top + std::log(sum);
  }
}

void ReferenceOps::TopK(const Tensor& scores, const Tensor& bias, const Tensor& indices) {
  const int64_t experts = scores.dim(1), k = indices.dim(1);
  COHORT_CHECK(k <= experts, "the best %ld of %ld", k, experts);
  std::vector<int32_t> order(experts);
  for (int64_t t = 0; t < scores.dim(0); ++t) {
    const double* row = scores.data<double>() + t * experts;
    const auto key = [&](int32_t e) { return row[e] + (bias.defined() ? bias.data<double>()[e] : 0.0); };
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return key(a) > key(b); });
    std::copy_n(order.begin(), k, indices.data<int32_t>() + t * k);
  }
}

void ReferenceOps::GatherColumns(const Tensor& x, const Tensor& indices, const Tensor& y) {
  const int64_t k = indices.dim(1);
  for (int64_t i = 0; i < indices.size(); ++i) {
    y.data<double>()[i] = x.data<double>()[i / k * x.dim(1) + indices.data<int32_t>()[i]];
  }
}

void ReferenceOps::GatherColumnsGrad(const Tensor& dy, const Tensor& indices, const Tensor& dx) {
  const int64_t k = indices.dim(1);
  for (int64_t i = 0; i < indices.size(); ++i) {
    dx.data<double>()[i / k * dx.dim(1) + indices.data<int32_t>()[i]] += dy.data<double>()[i];
  }
}

void ReferenceOps::NormalizeRows(const Tensor& x, const Tensor& y) {
  const int64_t k = x.dim(1);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const double* in = x.data<double>() + t * k;
    const double sum = std::accumulate(in, in + k, 0.0);
    for (int64_t j = 0; j < k; ++j) y.data<double>()[t * k + j] = in[j] / sum;
  }
}

void ReferenceOps::NormalizeRowsGrad(const Tensor& dy, const Tensor& x, const Tensor& y, const Tensor& dx) {
  const int64_t k = x.dim(1);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const double *g = dy.data<double>() + t * k, *in = x.data<double>() + t * k,
                 *out = y.data<double>() + t * k;
    const double sum = std::accumulate(in, in + k, 0.0), dot = std::inner_product(g, g + k, out, 0.0);
    for (int64_t j = 0; j < k; ++j) dx.data<double>()[t * k + j] = (g[j] - dot) / sum;
  }
}

void ReferenceOps::SortByExpert(const Tensor& indices, const Tensor& offsets, const Tensor& order,
                                const Tensor& places) {
  const int64_t experts = offsets.dim(0) - 1;
  const int32_t* chosen = indices.data<int32_t>();
  int32_t place = 0;
  std::fill_n(places.data<int32_t>(), places.size(), -1);
  std::fill_n(order.data<int32_t>(), order.size(), -1);
  for (int64_t e = 0; e < experts; ++e) {
    offsets.data<int32_t>()[e] = place;
    for (int64_t i = 0; i < indices.size(); ++i) {
      COHORT_CHECK(chosen[i] >= -1 && chosen[i] < experts, "expert %d of %ld", chosen[i], experts);
      if (chosen[i] != e) continue;
      order.data<int32_t>()[place] = static_cast<int32_t>(i);
      places.data<int32_t>()[i] = place++;
    }
  }
  offsets.data<int32_t>()[experts] = place;
}

void ReferenceOps::CombineRows(const Tensor& x, const Tensor& places, const Tensor& weights,
                               const Tensor& y) {
  const int64_t k = places.dim(1), width = x.dim(1);
  std::fill_n(y.data<double>(), y.size(), 0.0);
  for (int64_t i = 0; i < places.size(); ++i) {
    const int64_t place = places.data<int32_t>()[i];
    if (place < 0) continue;
    const double weight = weights.defined() ? weights.data<double>()[i] : 1.0;
    for (int64_t c = 0; c < width; ++c) {
      y.data<double>()[i / k * width + c] += weight * x.data<double>()[place * width + c];
    }
  }
}

void ReferenceOps::CombineRowsGrad(const Tensor& dy, const Tensor& x, const Tensor& places,
                                   const Tensor& weights, const Tensor& dx, const Tensor& dweights) {
  const int64_t k = places.dim(1), width = dy.dim(1);
  for (int64_t i = 0; i < places.size(); ++i) {
    const int64_t place = places.data<int32_t>()[i];
    if (dweights.defined()) dweights.data<double>()[i] = 0;
    if (place < 0) continue;
    const double weight = weights.defined() ? weights.data<double>()[i] : 1.0;
    for (int64_t c = 0; c < width; ++c) {
      const double g = dy.data<double>()[i / k * width + c];
      if (dweights.defined()) dweights.data<double>()[i] += g * x.data<double>()[place * width + c];
      dx.data<double>()[place * width + c] = weight * g;
    }
  }
}

}  // namespace cohort::runtime
