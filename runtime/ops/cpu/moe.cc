// The mixture-of-experts operations on the CPU. What runs over [T, E] is small beside the experts' products
// and is plain loops over rows; what moves token rows is vectorised.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cpu/cpu_ops.h"
#include "runtime/ops/cpu/kernels.h"
#include "runtime/ops/cpu/parallel.h"

namespace cohort::runtime {
namespace {

// Rows (or elements) of the router's tensors that are worth a thread.
constexpr int64_t kRouterGrain = 256;
constexpr int64_t kTokenGrain = 32;

template <typename Body>
void ForRows(int64_t rows, int64_t grain, const Body& body) {
  ParallelFor(rows, grain, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) body(t);
  });
}

void CheckIndex(const char* op, int64_t index, int64_t lowest, int64_t size) {
  COHORT_CHECK(index >= lowest && index < size, "%s: index %ld of %ld", op, static_cast<long>(index),
               static_cast<long>(size));
}

// y[t] = sum_j weights[t, j] x[places[t, j]], summed in f32 in the order of j.
template <typename T>
void Combine(const T* x, int64_t rows, const int32_t* places, const float* weights, T* y, int64_t tokens,
             int64_t k, int64_t width) {
  const Kernels<T>& kernels = KernelsOf<T>();
  ParallelFor(tokens, kTokenGrain, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> sum(width);
    for (int64_t t = begin; t < end; ++t) {
      std::fill(sum.begin(), sum.end(), 0.0f);
      for (int64_t i = t * k; i < (t + 1) * k; ++i) {
        CheckIndex("CombineRows", places[i] < 0 ? -1 : places[i], -1, rows);
        if (places[i] < 0) continue;
        kernels.accumulate_state(x + places[i] * width, weights != nullptr ? weights[i] : 1.0f, sum.data(),
                                 width);
      }
      kernels.from_float(sum.data(), y + t * width, width);
    }
  });
}

template <typename T>
void CombineGrad(const T* dy, const T* x, const int32_t* places, const float* weights, T* dx, int64_t rows,
                 float* dweights, int64_t tokens, int64_t k, int64_t width) {
  const Kernels<T>& kernels = KernelsOf<T>();
  ForRows(tokens, kTokenGrain, [&](int64_t t) {
    for (int64_t i = t * k; i < (t + 1) * k; ++i) {
      CheckIndex("CombineRowsGrad", places[i] < 0 ? -1 : places[i], -1, rows);
      if (dweights != nullptr) dweights[i] = 0;
      if (places[i] < 0) continue;
      if (dweights != nullptr) dweights[i] = kernels.dot(dy + t * width, x + places[i] * width, width);
      T* to = dx + places[i] * width;
      std::memcpy(static_cast<void*>(to), dy + t * width, width * sizeof(T));
      if (weights != nullptr) kernels.scale(to, weights[i], width);
    }
  });
}

}  // namespace

void CpuOps::Softmax(const Tensor& x, const Tensor& y) {
  CheckSameShape("Softmax", x, y);
  const int64_t n = x.dim(1);
  const float* in = x.data<float>();
  float* out = y.data<float>();
  ForRows(n > 0 ? x.dim(0) : 0, kRouterGrain, [=](int64_t t) {
    const float *row = in + t * n, top = *std::max_element(row, row + n);
    float* to = out + t * n;
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += to[i] = std::exp(row[i] - top);
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(to[i] / sum);
  });
}

void CpuOps::SoftmaxGrad(const Tensor& dy, const Tensor& y, const Tensor& dx) {
  CheckSameShape("SoftmaxGrad", dy, y);
  CheckSameShape("SoftmaxGrad", dx, y);
  const int64_t n = y.dim(1);
  const float *grad = dy.data<float>(), *value = y.data<float>();
  float* out = dx.data<float>();
  ForRows(y.dim(0), kRouterGrain, [=](int64_t t) {
    double dot = 0;
    for (int64_t i = t * n; i < (t + 1) * n; ++i) dot += static_cast<double>(grad[i]) * value[i];
    for (int64_t i = t * n; i < (t + 1) * n; ++i) out[i] = static_cast<float>(value[i] * (grad[i] - dot));
  });
}

void CpuOps::Sigmoid(const Tensor& x, const Tensor& y) {
  CheckSameShape("Sigmoid", x, y);
  const float* in = x.data<float>();
  float* out = y.data<float>();
  ForRows(x.size(), kRouterGrain * 16, [=](int64_t i) { out[i] = 1 / (1 + std::exp(-in[i])); });
}

void CpuOps::SigmoidGrad(const Tensor& dy, const Tensor& y, const Tensor& dx) {
  CheckSameShape("SigmoidGrad", dy, y);
  CheckSameShape("SigmoidGrad", dx, y);
  const float *grad = dy.data<float>(), *value = y.data<float>();
  float* out = dx.data<float>();
  ForRows(y.size(), kRouterGrain * 16, [=](int64_t i) { out[i] = grad[i] * value[i] * (1 - value[i]); });
}

void CpuOps::LogSumExp(const Tensor& x, const Tensor& lse) {
  CheckShape("LogSumExp", lse, {x.dim(0)});
  const int64_t n = x.dim(1);
  const float* in = x.data<float>();
  float* out = lse.data<float>();
  ForRows(n > 0 ? x.dim(0) : 0, kRouterGrain, [=](int64_t t) {
    const float *row = in + t * n, top = *std::max_element(row, row + n);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(row[i] - top);
    out[t] = static_cast<float>(top + std::log(sum));
  });
}

void CpuOps::TopK(const Tensor& scores, const Tensor& bias, const Tensor& indices) {
  const int64_t experts = scores.dim(1), k = indices.dim(1);
  CheckShape("TopK", indices, {scores.dim(0), k});
  COHORT_CHECK(k <= experts, "the best %ld of %ld", static_cast<long>(k), static_cast<long>(experts));
  if (bias.defined()) CheckShape("TopK", bias, {experts});
  const float *in = scores.data<float>(), *add = bias.defined() ? bias.data<float>() : nullptr;
  int32_t* out = indices.data<int32_t>();
  ParallelFor(scores.dim(0), kRouterGrain, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> keys(k);
    for (int64_t t = begin; t < end; ++t) {
      int32_t* best = out + t * k;
      int64_t found = 0;
      // Insertion into the best so far: later equals stay behind.
      for (int64_t e = 0; e < experts; ++e) {
        const float key = in[t * experts + e] + (add != nullptr ? add[e] : 0.0f);
        if (found == k && (k == 0 || !(key > keys[k - 1]))) continue;
        int64_t at = found < k ? found++ : k - 1;
        for (; at > 0 && key > keys[at - 1]; --at) keys[at] = keys[at - 1], best[at] = best[at - 1];
        keys[at] = key;
        best[at] = static_cast<int32_t>(e);
      }
    }
  });
}

void CpuOps::GatherColumns(const Tensor& x, const Tensor& indices, const Tensor& y) {
  CheckSameShape("GatherColumns", indices, y);
  const int64_t k = indices.dim(1), n = x.dim(1);
  const int32_t* columns = indices.data<int32_t>();
  const float* in = x.data<float>();
  float* out = y.data<float>();
  for (int64_t i = 0; i < indices.size(); ++i) {
    CheckIndex("GatherColumns", columns[i], 0, n);
    out[i] = in[i / k * n + columns[i]];
  }
}

void CpuOps::GatherColumnsGrad(const Tensor& dy, const Tensor& indices, const Tensor& dx) {
  CheckSameShape("GatherColumnsGrad", indices, dy);
  const int64_t k = indices.dim(1), n = dx.dim(1);
  const int32_t* columns = indices.data<int32_t>();
  const float* in = dy.data<float>();
  float* out = dx.data<float>();
  for (int64_t i = 0; i < indices.size(); ++i) {
    CheckIndex("GatherColumnsGrad", columns[i], 0, n);
    out[i / k * n + columns[i]] += in[i];
  }
}

void CpuOps::NormalizeRows(const Tensor& x, const Tensor& y) {
  CheckSameShape("NormalizeRows", x, y);
  const int64_t k = x.dim(1);
  const float* in = x.data<float>();
  float* out = y.data<float>();
  for (int64_t t = 0; t < x.dim(0); ++t) {
    double sum = 0;
    for (int64_t j = t * k; j < (t + 1) * k; ++j) sum += in[j];
    for (int64_t j = t * k; j < (t + 1) * k; ++j) out[j] = static_cast<float>(in[j] / sum);
  }
}

void CpuOps::NormalizeRowsGrad(const Tensor& dy, const Tensor& x, const Tensor& y, const Tensor& dx) {
  for (const Tensor* other : {&dy, &y, &dx}) CheckSameShape("NormalizeRowsGrad", x, *other);
  const int64_t k = x.dim(1);
  const float *grad = dy.data<float>(), *in = x.data<float>(), *value = y.data<float>();
  float* out = dx.data<float>();
  for (int64_t t = 0; t < x.dim(0); ++t) {
    double sum = 0, dot = 0;
    for (int64_t j = t * k; j < (t + 1) * k; ++j) {
      sum += in[j];
      dot += static_cast<double>(grad[j]) * value[j];
    }
    for (int64_t j = t * k; j < (t + 1) * k; ++j) out[j] = static_cast<float>((grad[j] - dot) / sum);
  }
}

void CpuOps::SortByExpert(const Tensor& indices, const Tensor& offsets, const Tensor& order,
                          const Tensor& places) {
  const int64_t experts = offsets.dim(0) - 1, choices = indices.size();
  COHORT_CHECK(order.size() == choices && places.size() == choices, "SortByExpert of %s into %s and %s",
               indices.DebugString().c_str(), order.DebugString().c_str(), places.DebugString().c_str());
  const int32_t* chosen = indices.data<int32_t>();
  int32_t *begin = offsets.data<int32_t>(), *sorted = order.data<int32_t>(), *place = places.data<int32_t>();
  std::fill_n(begin, experts + 1, 0);
  for (int64_t i = 0; i < choices; ++i) {
    CheckIndex("SortByExpert", chosen[i], -1, experts);
    if (chosen[i] >= 0) ++begin[chosen[i] + 1];
  }
  for (int64_t e = 0; e < experts; ++e) begin[e + 1] += begin[e];
  std::vector<int32_t> next(begin, begin + experts);
  for (int64_t i = 0; i < choices; ++i) {
    place[i] = chosen[i] >= 0 ? next[chosen[i]]++ : -1;
    if (place[i] >= 0) sorted[place[i]] = static_cast<int32_t>(i);
  }
  std::fill(sorted + begin[experts], sorted + choices, -1);
}

void CpuOps::CombineRows(const Tensor& x, const Tensor& places, const Tensor& weights, const Tensor& y) {
  CheckSameType("CombineRows", x, y);
  const int64_t tokens = places.dim(0), k = places.dim(1), width = x.dim(1);
  CheckShape("CombineRows", y, {tokens, width});
  if (weights.defined()) CheckSameShape("CombineRows", places, weights);
  const float* scales = weights.defined() ? weights.data<float>() : nullptr;
  if (x.dtype() == DataType::kBF16) {
    Combine(x.data<BFloat16>(), x.dim(0), places.data<int32_t>(), scales, y.data<BFloat16>(), tokens, k,
            width);
  } else {
    Combine(x.data<float>(), x.dim(0), places.data<int32_t>(), scales, y.data<float>(), tokens, k, width);
  }
}

void CpuOps::CombineRowsGrad(const Tensor& dy, const Tensor& x, const Tensor& places, const Tensor& weights,
                             const Tensor& dx, const Tensor& dweights) {
  CheckSameType("CombineRowsGrad", dy, dx);
  const int64_t tokens = places.dim(0), k = places.dim(1), width = dy.dim(1);
  CheckShape("CombineRowsGrad", dy, {tokens, width});
  if (weights.defined()) CheckSameShape("CombineRowsGrad", places, weights);
  if (dweights.defined()) {
    CheckSameShape("CombineRowsGrad", places, dweights);
    CheckSameShape("CombineRowsGrad", x, dx);
  }
  const float* scales = weights.defined() ? weights.data<float>() : nullptr;
  float* grads = dweights.defined() ? dweights.data<float>() : nullptr;
  const auto run = [&]<typename T>(T) {
    CombineGrad(dy.data<T>(), dweights.defined() ? x.data<T>() : nullptr, places.data<int32_t>(), scales,
                dx.data<T>(), dx.dim(0), grads, tokens, k, width);
  };
  dy.dtype() == DataType::kBF16 ? run(BFloat16()) : run(float{});
}

}  // namespace cohort::runtime
