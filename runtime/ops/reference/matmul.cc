// Matrix products by their definition, in f64.
#include "runtime/ops/check_shapes.h"
#include "runtime/ops/reference/reference_ops.h"

namespace cohort::runtime {
namespace {

// A matrix as element (i, j) = data[i row + j column].
struct Matrix {
  const double* data;
  int64_t row, column;
  double operator()(int64_t i, int64_t j) const { return data[i * row + j * column]; }
};

Matrix Rows(const Tensor& x, bool transpose) {
  return transpose ? Matrix{x.data<double>(), 1, x.dim(1)} : Matrix{x.data<double>(), x.dim(1), 1};
}

// c[m,n] (+)= a[m,k] b[k,n]
void Multiply(Matrix a, Matrix b, double* c, int64_t m, int64_t n, int64_t k, bool accumulate) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < k; ++l) sum += a(i, l) * b(l, j);
      c[i * n + j] = accumulate ? c[i * n + j] + sum : sum;
    }
  }
}

}  // namespace

void ReferenceOps::MatMul(const Tensor& a, const Tensor& b, const Tensor& c, MatMulOptions options) {
  const auto [m, n, k] = CheckMatMul(a, b, c, options.transpose_a, options.transpose_b);
  Multiply(Rows(a, options.transpose_a), Rows(b, options.transpose_b), c.data<double>(), m, n, k,
           options.accumulate);
}

void ReferenceOps::GroupedMatMul(const Tensor& x, const Tensor& offsets, const Tensor& w, bool transpose_w,
                                 const Tensor& y) {
  const int64_t in = x.dim(1), out = y.dim(1), experts = w.dim(0);
  CheckShape("GroupedMatMul", w, transpose_w ? Shape{experts, in, out} : Shape{experts, out, in});
  CheckShape("GroupedMatMul", y, {x.dim(0), out});
  const int32_t* o = CheckOffsets("GroupedMatMul", offsets, experts, x.dim(0));
  for (int64_t g = 0; g < experts; ++g) {
    Multiply(Rows(x.Slice(o[g], o[g + 1]), false), Rows(w.Row(g), !transpose_w),
             y.data<double>() + o[g] * out, o[g + 1] - o[g], out, in, false);
  }
}

void ReferenceOps::GroupedMatMulWeightGrad(const Tensor& dy, const Tensor& x, const Tensor& offsets,
                                           const Tensor& dw) {
  const int64_t in = x.dim(1), out = dy.dim(1), experts = dw.dim(0);
  CheckShape("GroupedMatMulWeightGrad", dw, {experts, out, in});
  CheckShape("GroupedMatMulWeightGrad", dy, {x.dim(0), out});
  const int32_t* o = CheckOffsets("GroupedMatMulWeightGrad", offsets, experts, x.dim(0));
  for (int64_t g = 0; g < experts; ++g) {
    Multiply(Rows(dy.Slice(o[g], o[g + 1]), true), Rows(x.Slice(o[g], o[g + 1]), false),
             dw.data<double>() + g * out * in, out, in, o[g + 1] - o[g], true);
  }
}

}  // namespace cohort::runtime
