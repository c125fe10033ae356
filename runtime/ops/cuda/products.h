// Matrix products beside cuBLASLt: the kernels of grouped_product.cu, plain_product.cu and skinny_product.cu.
#pragma once

#include "runtime/ops/cuda/element.h"
#include "runtime/ops/cuda/launch.h"

namespace cohort::runtime::COHORT_CUDA {

// A matrix as element (i, j) = data[i row + j column].
struct Strides {
  int64_t row, column;
};

// A product c[m, n] (+)= a[m, k] b[k, n], or one for each group of rows. Offsets are on the device.
struct Product {
  enum class Groups : uint8_t {
    kNone,  // one product
    kRows,  // rows [offsets[g], offsets[g + 1]) of a and c meet b + g b_group
    kSums,  // columns [offsets[g], offsets[g + 1]) of a, rows of b: c + g c_group
  };
  int64_t m = 0, n = 0, k = 0;
  Strides a{}, b{};  // c is row-major [m, n]
  bool accumulate = false;
  Groups grouping = Groups::kNone;
  int64_t groups = 1;
  const int32_t* offsets = nullptr;
  int64_t b_group = 0, c_group = 0;
};

// Any shape, any strides, in f32 multiply-adds of tiles in shared memory: f32 products of groups, and what the others
// do not take. T float or Bf16, O float or T.
template <typename T, typename O>
void PlainProduct(const Queue& queue, const Product& product, const T* a, const T* b, O* c);

// Groups of bf16 on tensor cores. `where b is [n, k]` (row-major) or [k, n]; sums of rows: a is [k, m], b [k, n].
bool GroupedProductTakes(const Product& product, const void* a, const void* b, const void* c,
                         size_t output_bytes);
void GroupedRows(const Queue& queue, const Product& product, const Bf16* a, const Bf16* b, Bf16* c);
void GroupedSums(const Queue& queue, const Product& product, const Bf16* a, const Bf16* b, float* c);

// y[m, n] = x[m, k] w[n, k]^T for at most kSkinnyRows rows of bf16: streams w once. O float or Bf16.
inline constexpr int64_t kSkinnyRows = 8;
bool SkinnyProductTakes(int64_t m, int64_t n, int64_t k, const void* x, const void* w);
template <typename O>
void SkinnyProduct(const Queue& queue, const Bf16* x, const Bf16* w, O* y, int64_t m, int64_t n, int64_t k);

}  // namespace cohort::runtime::COHORT_CUDA
