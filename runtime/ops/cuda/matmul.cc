// Matrix products: which of the ways to make them takes one. In this order:
//   few rows of bf16, y = x W^T      skinny_product.cu, which streams W once
//   everything that cuBLASLt has     cublas.cc
//   the rest                         plain_product.cu
// Groups go to grouped_product.cu in bf16 where rows are whole pieces of 16 bytes, else to plain_product.cu.
#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cuda/compute_type.h"
#include "runtime/ops/cuda/cuda_ops.h"
#include "runtime/ops/cuda/products.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

// A row-major [rows, columns] as op(x): element (i, j) of the transposed matrix is (j, i) of the memory.
Strides StridesOf(int64_t columns, bool transpose) {
  return transpose ? Strides{1, columns} : Strides{columns, 1};
}

// body(T{}, O{}): of inputs and output.
template <typename Body>
void WithTypes(const char* op, const Tensor& input, const Tensor& output, const Body& body) {
  WithComputeType(op, input, [&]<typename T>(T) {
    if (output.dtype() == DataType::kF32) {
      body(T{}, float{});
    } else {
      body(T{}, T{});
    }
  });
}

}  // namespace

void CudaOps::MatMul(const Tensor& a, const Tensor& b, const Tensor& c, MatMulOptions options) {
  const auto [m, n, k] = CheckMatMul(a, b, c, options.transpose_a, options.transpose_b);
  CheckSameType("MatMul", a, b);
  if (c.dtype() != DataType::kF32) CheckSameType("MatMul", a, c);
  if (m == 0 || n == 0) return;
  const Queue& queue = Enter();
  const bool linear = !options.transpose_a && options.transpose_b && !options.accumulate;
  if (linear && a.dtype() == DataType::kBF16 && SkinnyProductTakes(m, n, k, a.raw(), b.raw())) {
    if (c.dtype() == DataType::kF32) {
      SkinnyProduct(queue, Data<Bf16>(a), Data<Bf16>(b), Floats(c), m, n, k);
    } else {
      SkinnyProduct(queue, Data<Bf16>(a), Data<Bf16>(b), Data<Bf16>(c), m, n, k);
    }
    return;
  }
  const BlasProduct whole = {
      m, n, k, options.transpose_a, options.transpose_b, options.accumulate, a.dtype(), c.dtype()};
  if (k > 0 && blas_ != nullptr && blas_->Multiply(whole, a.raw(), b.raw(), c.raw())) return;
  Product product;
  product.m = m, product.n = n, product.k = k;
  product.a = StridesOf(a.dim(1), options.transpose_a);
  product.b = StridesOf(b.dim(1), options.transpose_b);
  product.accumulate = options.accumulate;
  WithTypes("MatMul", a, c, [&]<typename T, typename O>(T, O) {
    PlainProduct<T, O>(queue, product, Data<T>(a), Data<T>(b), Data<O>(c));
  });
}

void CudaOps::GroupedMatMul(const Tensor& x, const Tensor& offsets, const Tensor& w, bool transpose_w,
                            const Tensor& y) {
  const int64_t in = x.dim(1), out = y.dim(1), experts = w.dim(0);
  CheckShape("GroupedMatMul", w, transpose_w ? Shape{experts, in, out} : Shape{experts, out, in});
  CheckShape("GroupedMatMul", y, {x.dim(0), out});
  CheckShape("GroupedMatMul", offsets, {experts + 1});
  CheckSameType("GroupedMatMul", x, w);
  CheckSameType("GroupedMatMul", x, y);
  Product product;
  product.m = x.dim(0), product.n = out, product.k = in;
  product.a = {in, 1};
  product.b = StridesOf(w.dim(2), !transpose_w);
  product.grouping = Product::Groups::kRows;
  product.groups = experts;
  product.offsets = Indices(offsets);
  product.b_group = in * out;
  const Queue& queue = Enter();
  if (x.dtype() == DataType::kBF16 && GroupedProductTakes(product, x.raw(), w.raw(), y.raw(), 2)) {
    return GroupedRows(queue, product, Data<Bf16>(x), Data<Bf16>(w), Data<Bf16>(y));
  }
  WithComputeType("GroupedMatMul", x, [&]<typename T>(T) {
    PlainProduct<T, T>(queue, product, Data<T>(x), Data<T>(w), Data<T>(y));
  });
}

void CudaOps::GroupedMatMulWeightGrad(const Tensor& dy, const Tensor& x, const Tensor& offsets,
                                      const Tensor& dw) {
  const int64_t in = x.dim(1), out = dy.dim(1), experts = dw.dim(0);
  CheckShape("GroupedMatMulWeightGrad", dw, {experts, out, in});
  CheckShape("GroupedMatMulWeightGrad", dy, {x.dim(0), out});
  CheckShape("GroupedMatMulWeightGrad", offsets, {experts + 1});
  CheckSameType("GroupedMatMulWeightGrad", dy, x);
  CheckType("GroupedMatMulWeightGrad", dw, DataType::kF32);
  Product product;  // dw[out, in] += dy^T[out, rows] x[rows, in]
  product.m = out, product.n = in, product.k = x.dim(0);
  product.a = {1, out};
  product.b = {in, 1};
  product.accumulate = true;
  product.grouping = Product::Groups::kSums;
  product.groups = experts;
  product.offsets = Indices(offsets);
  product.c_group = in * out;
  const Queue& queue = Enter();
  if (x.dtype() == DataType::kBF16 && GroupedProductTakes(product, dy.raw(), x.raw(), dw.raw(), 4)) {
    return GroupedSums(queue, product, Data<Bf16>(dy), Data<Bf16>(x), Floats(dw));
  }
  WithComputeType("GroupedMatMulWeightGrad", x, [&]<typename T>(T) {
    PlainProduct<T, float>(queue, product, Data<T>(dy), Data<T>(x), Floats(dw));
  });
}

}  // namespace cohort::runtime::COHORT_CUDA
