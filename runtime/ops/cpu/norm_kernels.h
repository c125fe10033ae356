// RMSNorm kernels. Included by kernel_table.h. A row is read from memory once and is in
// cache for its second pass.
#pragma once

namespace cohort::runtime::COHORT_ISA {

template <typename T>
void RmsNorm(const T* x, const T* residual, const T* w, float eps, T* sum, T* y, float* rstd, int64_t rows,
             int64_t d) {
  for (int64_t t = 0; t < rows; ++t) {
    const T* in = x + t * d;
    F32x16 squares = {};
    if (residual != nullptr) {
      // The norm is of the sum as it is stored, rounded, so that the gradient sees the same numbers.
      const T* other = residual + t * d;
      T* total = sum + t * d;
      ForVectors(
          d, COHORT_BODY {
            store(total, load(in) + load(other));
            const F32x16 value = load(total);
            squares += value * value;
          });
      in = total;
    } else {
      ForVectors(
          d, COHORT_BODY {
            const F32x16 value = load(in);
            squares += value * value;
          });
    }
    const float r = d == 0 ? 0.0f : 1.0f / __builtin_sqrtf(Sum(squares) / static_cast<float>(d) + eps);
    rstd[t] = r;
    T* out = y + t * d;
    ForVectors(
        d, COHORT_BODY { store(out, load(in) * r * load(w)); });
  }
}

// With g = dy w and n = x rstd: dx = rstd (g - n mean(g n)).
template <typename T>
void RmsNormGrad(const T* dy, const T* x, const T* w, const float* rstd, const T* add, T* dx, int64_t rows,
                 int64_t d) {
  for (int64_t t = 0; t < rows; ++t) {
    const T *grad = dy + t * d, *in = x + t * d;
    T* out = dx + t * d;
    F32x16 products = {};
    ForVectors(
        d, COHORT_BODY { products += load(grad) * load(w) * load(in); });
    const float r = rstd[t];
    const float coefficient = -r * r * r * Sum(products) / static_cast<float>(d);
    if (add != nullptr) {
      const T* other = add + t * d;
      ForVectors(
          d, COHORT_BODY { store(out, load(grad) * load(w) * r + load(in) * coefficient + load(other)); });
    } else {
      ForVectors(
          d, COHORT_BODY { store(out, load(grad) * load(w) * r + load(in) * coefficient); });
    }
  }
}

// Eight rows at a time, so that dw is read and written once for them.
template <typename T>
void RmsNormWeightGrad(const T* dy, const T* x, const float* rstd, float* dw, int64_t rows, int64_t d) {
  int64_t t = 0;
  for (; t + 8 <= rows; t += 8) {
    const T *grad = dy + t * d, *in = x + t * d;
    const float* r = rstd + t;
    ForVectors(
        d, COHORT_BODY {
          F32x16 sum = load(dw);
          for (int64_t i = 0; i < 8; ++i) sum += load(grad + i * d) * load(in + i * d) * r[i];
          store(dw, sum);
        });
  }
  for (; t < rows; ++t) {
    const T *grad = dy + t * d, *in = x + t * d;
    const float r = rstd[t];
    ForVectors(
        d, COHORT_BODY { store(dw, load(dw) + load(grad) * load(in) * r); });
  }
}

}  // namespace cohort::runtime::COHORT_ISA
