// Matrix products with few rows: decoding. The weights are far larger than the caches and each is used for a
// few multiplications only, so the product is as fast as the weights stream in from memory, once.
#pragma once

#include "runtime/tensor.h"

namespace cohort::runtime {

// y[m,n] = x[m,k] w[n,k]^T for m up to cpu_policy::kSkinnyRows. x and w: f32 or bf16, the same; y: that or
// f32. Returns false, having done nothing, where it does not take the case. Sums in f32, in an order that
// depends on neither the threads nor the other rows of the same kernel (bf16 on AMX has one for up to
// kDotRows rows, and one for more).
bool SkinnyMatMul(const Tensor& x, const Tensor& w, const Tensor& y);

// Rows [offsets[g], offsets[g+1]) of x [M, k] meet w[g] [n, k]: y [M, n], of the groups that have at most
// kSkinnyRows rows. Returns false, having done nothing, where it does not take these types.
bool SkinnyGroupedMatMul(const Tensor& x, const Tensor& offsets, const Tensor& w, const Tensor& y);

}  // namespace cohort::runtime
