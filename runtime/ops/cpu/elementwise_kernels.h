// Kernels over plain arrays. Included by kernel_table.h.
#pragma once

namespace cohort::runtime::COHORT_ISA {

// A kernel's loop body: `load` and `store` as in ForVectors.
#define COHORT_BODY [&](auto load, auto store) __attribute__((always_inline))

template <typename T>
void ToFloat(const T* x, float* y, int64_t n) {
  ForVectors(
      n, COHORT_BODY { store(y, load(x)); });
}

// A copy is exact to the last bit, whatever the instruction set.
template <typename T>
void FromFloat(const float* x, T* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) StoreExactly(y + i, Load(x + i));
  if (i == n) return;
  T rest[kLanes];
  StoreExactly(rest, LoadPartial(x + i, n - i));
  __builtin_memcpy(static_cast<void*>(y + i), rest, static_cast<size_t>(n - i) * sizeof(T));
}

template <typename X, typename Y>
void Accumulate(const X* x, float scale, Y* y, int64_t n) {
  ForVectors(
      n, COHORT_BODY { store(y, load(y) + load(x) * scale); });
}

template <typename T>
void Add(const T* a, const T* b, T* c, int64_t n) {
  ForVectors(
      n, COHORT_BODY { store(c, load(a) + load(b)); });
}

template <typename T>
void Scale(T* x, float factor, int64_t n) {
  ForVectors(
      n, COHORT_BODY { store(x, load(x) * factor); });
}

// Sums of 4096 in f32 lanes, those in f64.
template <typename T>
double SumSquares(const T* x, int64_t n) {
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += 4096) {
    F32x16 lanes = {};
    ForVectors(
        n - begin < 4096 ? n - begin : 4096, COHORT_BODY {
          const F32x16 value = load(x + begin);
          lanes += value * value;
        });
    sum += static_cast<double>(Sum(lanes));
  }
  return sum;
}

template <typename T>
void SwiGlu(const T* gate, const T* up, T* y, int64_t n) {
  ForVectors(
      n, COHORT_BODY {
        const F32x16 g = load(gate);
        store(y, g * Sigmoid(g) * load(up));
      });
}

template <typename T>
void SwiGluGrad(const T* dy, const T* gate, const T* up, T* dgate, T* dup, int64_t n) {
  ForVectors(
      n, COHORT_BODY {
        const F32x16 grad = load(dy), g = load(gate), u = load(up);
        const F32x16 s = Sigmoid(g);
        store(dgate, grad * u * s * (1.0f + g * (1.0f - s)));
        store(dup, grad * g * s);
      });
}

template <typename T>
void AdamW(float* master, const float* grad, float* m, float* v, T* value, const AdamWConstants& step,
           int64_t n) {
  const AdamWConstants s = step;
  ForVectors(
      n, COHORT_BODY {
        const F32x16 g = load(grad) * s.grad_scale;
        const F32x16 first = s.beta1 * load(m) + s.complement1 * g;
        const F32x16 second = s.beta2 * load(v) + s.complement2 * g * g;
        F32x16 root = second;
        for (int64_t i = 0; i < kLanes; ++i) root[i] = __builtin_sqrtf(second[i]);
        const F32x16 old = load(master);
        const F32x16 w = old - (s.step_size * first / (root * s.inverse_root2 + s.eps) + s.decay * old);
        store(m, first);
        store(v, second);
        store(master, w);
        if (value != nullptr) store(value, w);
      });
}

}  // namespace cohort::runtime::COHORT_ISA
