// Dot products, rotary positions, the loss of a row, and transposition. Included by kernel_table.h.
#pragma once

namespace cohort::runtime::COHORT_ISA {

template <typename T>
float Dot(const T* a, const T* b, int64_t n) {
  F32x16 sum = {};
  ForVectors(
      n, COHORT_BODY { sum += load(a) * load(b); });
  return Sum(sum);
}

template <typename T>
void Rope(T* x, const int32_t* positions, const float* table, float sign, int64_t tokens, int64_t heads,
          int64_t c) {
  const int64_t half = c / 2;
  for (int64_t t = 0; t < tokens; ++t) {
    const float* cosines = table + positions[t] * c;
    const float* sines = cosines + half;
    for (int64_t h = 0; h < heads; ++h) {
      T* first = x + (t * heads + h) * c;
      T* second = first + half;
      ForVectors(
          half, COHORT_BODY {
            const F32x16 a = load(first), b = load(second), cosine = load(cosines), sine = load(sines) * sign;
            store(first, a * cosine - b * sine);
            store(second, b * cosine + a * sine);
          });
    }
  }
}

// The maximum and the sum of exponentials together, each lane with a maximum of its own that rarely grows
// (Milakov & Gimelshein, 2018). Four vectors share one test for a new maximum.
template <typename T>
void SoftmaxStats(const T* logits, int64_t v, float* row_max, double* row_sum) {
  constexpr float kLow = -3.0e38f;
  F32x16 top = Broadcast(kLow), sum = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= v; i += 4 * kLanes) {
    const F32x16 a = Load(logits + i), b = Load(logits + i + kLanes);
    const F32x16 c = Load(logits + i + 2 * kLanes), d = Load(logits + i + 3 * kLanes);
    const F32x16 new_top = Max(top, Max(Max(a, b), Max(c, d)));
    sum = sum * Exp(top - new_top) +
          ((Exp(a - new_top) + Exp(b - new_top)) + (Exp(c - new_top) + Exp(d - new_top)));
    top = new_top;
  }
  float lanes_top[kLanes], lanes_sum[kLanes];
  Store(lanes_top, top);
  Store(lanes_sum, sum);
  float row_top = MaxLane(top);
  for (int64_t j = i; j < v; ++j) {
    const float value = ToScalar(logits[j]);
    row_top = value > row_top ? value : row_top;
  }
  double total = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    if (lanes_sum[lane] != 0)
      total += lanes_sum[lane] * std::exp(static_cast<double>(lanes_top[lane] - row_top));
  }
  for (int64_t j = i; j < v; ++j) total += std::exp(static_cast<double>(ToScalar(logits[j]) - row_top));
  *row_max = row_top;
  *row_sum = total;
}

template <typename T>
void ScaledExp(const T* x, float shift, float factor, T* y, int64_t n) {
  ForVectors(
      n, COHORT_BODY { store(y, Exp(load(x) - shift) * factor); });
}

// A pass for the maximum and the sum, a second for the gradient.
template <typename T>
float CrossEntropy(const T* logits, int64_t v, int64_t target, float grad_scale, T* grad) {
  float row_top;
  double total;
  SoftmaxStats(logits, v, &row_top, &total);
  const float loss = static_cast<float>(std::log(total) + (row_top - ToScalar(logits[target])));
  if (grad == nullptr) return loss;

  const float at_target = ToScalar(logits[target]);
  ScaledExp(logits, row_top, static_cast<float>(grad_scale / total), grad, v);
  const double probability = std::exp(static_cast<double>(at_target - row_top)) / total;
  grad[target] = static_cast<T>(static_cast<float>(grad_scale * (probability - 1)));
  return loss;
}

// In blocks of 32 by 32, which stay in the first-level cache.
template <typename T>
void Transpose(const T* x, int64_t ldx, T* y, int64_t ldy, int64_t rows, int64_t columns) {
  constexpr int64_t kBlock = 32;
  for (int64_t i0 = 0; i0 < rows; i0 += kBlock) {
    const int64_t i1 = i0 + kBlock < rows ? i0 + kBlock : rows;
    for (int64_t j0 = 0; j0 < columns; j0 += kBlock) {
      const int64_t j1 = j0 + kBlock < columns ? j0 + kBlock : columns;
      for (int64_t j = j0; j < j1; ++j) {
        for (int64_t i = i0; i < i1; ++i) y[j * ldy + i] = x[i * ldx + j];
      }
    }
  }
}

}  // namespace cohort::runtime::COHORT_ISA
