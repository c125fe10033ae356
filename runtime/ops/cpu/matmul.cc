// Matrix products on the CPU.
#include "runtime/ops/cpu/matmul.h"

#include <omp.h>

#include <oneapi/dnnl/dnnl.h>
#include <cstring>
#include <memory>

#include "runtime/device/cpu_features.h"
#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cpu/amx_matmul.h"
#include "runtime/ops/cpu/cpu_ops.h"
#include "runtime/ops/cpu/kernels.h"
#include "runtime/ops/cpu/parallel.h"
#include "runtime/ops/cpu/policy.h"
#include "runtime/ops/cpu/skinny_matmul.h"
#include "runtime/ops/fixed_tiles.h"

namespace cohort::runtime {
namespace {

using namespace cpu_policy;

// Cuts a product into tiles along its longer side, and gives each to one thread:
// multiply(tile, a, b, c).
template <typename Multiply>
void InFixedTiles(const Product& p, const void* a, const void* b, void* c, const Multiply& multiply) {
  const bool rows = p.m > p.n;
  const int64_t side = rows ? p.m : p.n, tiles = (side + kFixedTile - 1) / kFixedTile;
  const auto one = [&](int64_t t) {
    const int64_t begin = t * kFixedTile, end = std::min(side, begin + kFixedTile);
    Product tile = p;
    tile.stride_a = p.lda(), tile.stride_b = p.ldb(), tile.stride_c = p.ldc();
    (rows ? tile.m : tile.n) = end - begin;
    const auto at = [](const void* x, int64_t element, DataType dtype) {
      return static_cast<const char*>(x) + element * static_cast<int64_t>(SizeOf(dtype));
    };
    if (rows) {
      multiply(tile, at(a, p.transpose_a ? begin : begin * p.lda(), p.input), b,
               const_cast<char*>(at(c, begin * p.ldc(), p.output)));
    } else {
      multiply(tile, a, at(b, p.transpose_b ? begin * p.ldb() : begin, p.input),
               const_cast<char*>(at(c, begin, p.output)));
    }
  };
  const int threads = static_cast<int>(std::min<int64_t>(CpuThreads(), tiles));
  if (threads <= 1) {
    for (int64_t t = 0; t < tiles; ++t) one(t);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t t = 0; t < tiles; ++t) one(t);
}

void MultiplyFloatOn(int threads, const Product& p, const float* a, const float* b, float* c) {
  omp_set_num_threads(threads);  // also of a task within a parallel region
  const dnnl_status_t status =
      dnnl_sgemm(p.transpose_a ? 'T' : 'N', p.transpose_b ? 'T' : 'N', p.m, p.n, p.k, 1.0f, a, p.lda(), b,
                 p.ldb(), p.accumulate ? 1.0f : 0.0f, c, p.ldc());
  COHORT_CHECK(status == dnnl_success, "oneDNN refused a product of %ld x %ld x %ld: status %d",
               static_cast<long>(p.m), static_cast<long>(p.n), static_cast<long>(p.k),
               static_cast<int>(status));
}

void MultiplyFloat(const Product& p, const float* a, const float* b, float* c) {
  if (!FixedTiles::On()) return MultiplyFloatOn(CpuThreads(), p, a, b, c);
  InFixedTiles(p, a, b, c, [](const Product& tile, const void* ta, const void* tb, void* tc) {
    MultiplyFloatOn(1, tile, static_cast<const float*>(ta), static_cast<const float*>(tb),
                    static_cast<float*>(tc));
  });
}

std::shared_ptr<float> Widened(const void* x, int64_t n) {
  auto wide = std::static_pointer_cast<float>(CpuDevice().Allocate(static_cast<size_t>(n) * sizeof(float)));
  ParallelFor(n, kElementGrain, kElementAlign, [&](int64_t begin, int64_t end) {
    KernelsOf<BFloat16>().to_float(static_cast<const BFloat16*>(x) + begin, wide.get() + begin, end - begin);
  });
  return wide;
}

// bf16 on machines without bf16 instructions: the product of the widened operands.
void MultiplyWidened(const Product& p, const void* a, const void* b, void* c) {
  const std::shared_ptr<float> wide_a = Widened(a, p.m * p.k), wide_b = Widened(b, p.k * p.n);
  Product wide = p;
  wide.input = wide.output = DataType::kF32;
  if (p.output == DataType::kF32)
    return MultiplyFloat(wide, wide_a.get(), wide_b.get(), static_cast<float*>(c));
  const std::shared_ptr<float> wide_c =
      p.accumulate ? Widened(c, p.m * p.n)
                   : std::static_pointer_cast<float>(CpuDevice().Allocate(p.m * p.n * sizeof(float)));
  MultiplyFloat(wide, wide_a.get(), wide_b.get(), wide_c.get());
  ParallelFor(p.m * p.n, kElementGrain, kElementAlign, [&](int64_t begin, int64_t end) {
    KernelsOf<BFloat16>().from_float(wide_c.get() + begin, static_cast<BFloat16*>(c) + begin, end - begin);
  });
}

// `count` equal parts of [0, n), each beginning at a multiple of `unit`: part i.
std::pair<int64_t, int64_t> Part(int64_t n, int64_t unit, int64_t count, int64_t i) {
  const int64_t units = (n + unit - 1) / unit;
  return {std::min(n, units * i / count * unit), std::min(n, units * (i + 1) / count * unit)};
}

// Cuts a product into about `parts` independent ones of about square shape, along m and n.
void Split(const AmxProduct& whole, int64_t parts, std::vector<AmxProduct>& tasks) {
  constexpr int64_t kUnit = 32;  // a strip of tiles
  int64_t parts_m = 1, parts_n = 1;
  while (parts_m * parts_n < parts) {
    if (whole.n / parts_n >= whole.m / parts_m && whole.n / parts_n > kUnit) {
      ++parts_n;
    } else if (whole.m / parts_m > kUnit) {
      ++parts_m;
    } else {
      break;
    }
  }
  for (int64_t i = 0; i < parts_m; ++i) {
    const auto [m0, m1] = Part(whole.m, kUnit, parts_m, i);
    for (int64_t j = 0; j < parts_n; ++j) {
      const auto [n0, n1] = Part(whole.n, kUnit, parts_n, j);
      if (m0 == m1 || n0 == n1) continue;
      AmxProduct task = whole;
      task.m = m1 - m0;
      task.n = n1 - n0;
      task.a += whole.transpose_a ? m0 : m0 * whole.lda;
      task.b += whole.transpose_b ? n0 * whole.ldb : n0;
      task.c =
          static_cast<char*>(whole.c) + (m0 * whole.ldc + n0) * static_cast<int64_t>(SizeOf(whole.output));
      tasks.push_back(task);
    }
  }
}

AmxProduct OnTiles(const Product& p, const void* a, const void* b, void* c) {
  return {.m = p.m,
          .n = p.n,
          .k = p.k,
          .a = static_cast<const BFloat16*>(a),
          .lda = p.transpose_a ? p.m : p.k,
          .transpose_a = p.transpose_a,
          .b = static_cast<const BFloat16*>(b),
          .ldb = p.transpose_b ? p.k : p.n,
          .transpose_b = p.transpose_b,
          .c = c,
          .ldc = p.n,
          .output = p.output,
          .accumulate = p.accumulate};
}

// Each task is computed the same way whichever thread takes it.
void Run(const std::vector<AmxProduct>& tasks) {
  const int64_t count = static_cast<int64_t>(tasks.size());
  const int threads = static_cast<int>(std::min<int64_t>(CpuThreads(), count));
  if (threads <= 1) {
    for (const AmxProduct& task : tasks) MultiplyOnTiles(task);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t i = 0; i < count; ++i) MultiplyOnTiles(tasks[i]);
}

}  // namespace

void Multiply(const Product& p, const void* a, const void* b, void* c) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) {
    if (!p.accumulate) std::memset(c, 0, static_cast<size_t>(p.m * p.n) * SizeOf(p.output));
    return;
  }
  if (p.input == DataType::kF32) {
    MultiplyFloat(p, static_cast<const float*>(a), static_cast<const float*>(b), static_cast<float*>(c));
  } else if (ActiveCpuIsa() >= CpuIsa::kAmx) {
    std::vector<AmxProduct> tasks;
    Split(OnTiles(p, a, b, c), CpuThreads(), tasks);
    Run(tasks);
  } else if (ActiveCpuIsa() >= CpuIsa::kAvx512) {
    if (!FixedTiles::On()) return MultiplyWithPrimitive(p, CpuThreads(), a, b, c);
    InFixedTiles(p, a, b, c, [](const Product& tile, const void* ta, const void* tb, void* tc) {
      MultiplyWithPrimitive(tile, 1, ta, tb, tc);
    });
  } else {
    MultiplyWidened(p, a, b, c);
  }
}

namespace {

// Products that do not depend on each other. On tiles all of them are shared out at once, so that small
// groups keep every thread busy; elsewhere they follow one another.
class Groups {
 public:
  void Add(const Product& product, const void* a, const void* b, void* c) {
    products_.push_back({product, a, b, c});
    work_ += product.m * product.n * product.k;
  }

  void Multiply() const {
    std::vector<AmxProduct> tasks;
    for (const Group& group : products_) {
      const Product& p = group.product;
      if (p.input == DataType::kF32 || ActiveCpuIsa() < CpuIsa::kAmx || p.m * p.n * p.k == 0) {
        cohort::runtime::Multiply(p, group.a, group.b, group.c);
        continue;
      }
      // A group is cut only where it is more than a fair share: cutting packs one operand twice.
      const int64_t share = std::max<int64_t>(1, work_ / CpuThreads());
      Split(OnTiles(p, group.a, group.b, group.c), (p.m * p.n * p.k + share - 1) / share, tasks);
    }
    Run(tasks);
  }

 private:
  struct Group {
    Product product;
    const void *a, *b;
    void* c;
  };
  std::vector<Group> products_;
  int64_t work_ = 0;
};

}  // namespace

void CpuOps::MatMul(const Tensor& a, const Tensor& b, const Tensor& c, MatMulOptions options) {
  const auto [m, n, k] = CheckMatMul(a, b, c, options.transpose_a, options.transpose_b);
  CheckSameType("MatMul", a, b);
  if (c.dtype() != DataType::kF32) CheckSameType("MatMul", a, c);
  const bool linear = !options.transpose_a && options.transpose_b && !options.accumulate;
  if (linear && SkinnyMatMul(a, b, c)) return;
  Multiply({m, n, k, options.transpose_a, options.transpose_b, options.accumulate, a.dtype(), c.dtype()},
           a.raw(), b.raw(), c.raw());
}

void CpuOps::GroupedMatMul(const Tensor& x, const Tensor& offsets, const Tensor& w, bool transpose_w,
                           const Tensor& y) {
  const int64_t in = x.dim(1), out = y.dim(1), experts = w.dim(0);
  CheckShape("GroupedMatMul", w, transpose_w ? Shape{experts, in, out} : Shape{experts, out, in});
  CheckShape("GroupedMatMul", y, {x.dim(0), out});
  CheckSameType("GroupedMatMul", x, w);
  const int32_t* o = CheckOffsets("GroupedMatMul", offsets, experts, x.dim(0));
  // Each group goes its way whatever the others' sizes, so that its bits do not depend on them.
  const bool skinny = !transpose_w && SkinnyGroupedMatMul(x, offsets, w, y);
  Groups groups;
  for (int64_t g = 0; g < experts; ++g) {
    if (skinny && o[g + 1] - o[g] <= kSkinnyRows) continue;
    groups.Add({o[g + 1] - o[g], out, in, false, !transpose_w, false, x.dtype(), y.dtype()},
               x.Slice(o[g], o[g + 1]).raw(), w.Row(g).raw(), y.Slice(o[g], o[g + 1]).raw());
  }
  groups.Multiply();
}

void CpuOps::GroupedMatMulWeightGrad(const Tensor& dy, const Tensor& x, const Tensor& offsets,
                                     const Tensor& dw) {
  const int64_t in = x.dim(1), out = dy.dim(1), experts = dw.dim(0);
  CheckShape("GroupedMatMulWeightGrad", dw, {experts, out, in});
  CheckShape("GroupedMatMulWeightGrad", dy, {x.dim(0), out});
  CheckSameType("GroupedMatMulWeightGrad", dy, x);
  CheckType("GroupedMatMulWeightGrad", dw, DataType::kF32);
  const int32_t* o = CheckOffsets("GroupedMatMulWeightGrad", offsets, experts, x.dim(0));
  Groups groups;
  for (int64_t g = 0; g < experts; ++g) {
    groups.Add({out, in, o[g + 1] - o[g], true, false, true, x.dtype(), DataType::kF32},
               dy.Slice(o[g], o[g + 1]).raw(), x.Slice(o[g], o[g + 1]).raw(), dw.Row(g).raw());
  }
  groups.Multiply();
}

}  // namespace cohort::runtime
