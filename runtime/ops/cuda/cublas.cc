// Products by cuBLASLt (its manual: "Using the cuBLASLt API"). What the library chooses for a shape, by its heuristic,
// is chosen once and kept. Its matrices are column-major: a row-major c = op(a) op(b) is c^T = op(b)^T op(a)^T there, and
// a row-major matrix is its own transpose read by columns, so the operands change places and keep their transpositions.
#include "runtime/ops/cuda/cublas.h"

#include <cublasLt.h>

#include <algorithm>
#include <bit>
#include <list>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "comm/check.h"
#include "runtime/device/cuda/cuda_device.h"
#include "runtime/device/cuda/cuda_status.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

// Plans kept, least recently used first to go. One is about a kilobyte; lengths of prompts make new ones.
constexpr size_t kPlans = 1024;
// Alignments beyond this make no difference to the library.
constexpr uint32_t kMostAlignment = 256;

// A product, and how its operands' addresses are aligned.
struct Key {
  BlasProduct product;
  uint32_t align_a, align_b, align_c;
  bool operator==(const Key&) const = default;
};
struct HashKey {
  size_t operator()(const Key& key) const {
    size_t hash = 0;
    const auto add = [&](uint64_t x) {
      hash = (hash ^ x) * 0x9E3779B97F4A7C15u;
      hash ^= hash >> 29;
    };
    const BlasProduct& p = key.product;
    add(p.m), add(p.n), add(p.k);
    add(static_cast<uint64_t>(p.transpose_a) | p.transpose_b << 1 | p.accumulate << 2 |
        static_cast<uint64_t>(p.input) << 8 | static_cast<uint64_t>(p.output) << 16);
    add(static_cast<uint64_t>(key.align_a) << 40 | static_cast<uint64_t>(key.align_b) << 20 | key.align_c);
    return hash;
  }
};

uint32_t AlignmentOf(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  return static_cast<uint32_t>(std::min<uintptr_t>(kMostAlignment, address & (~address + 1)));
}

cudaDataType_t TypeOf(DataType dtype) { return dtype == DataType::kF32 ? CUDA_R_32F : CUDA_R_16BF; }

// Owned descriptions of the library's.
struct DestroyLayout {
  void operator()(cublasLtMatrixLayoutOpaque_t* x) const { cublasLtMatrixLayoutDestroy(x); }
};
struct DestroyMatmul {
  void operator()(cublasLtMatmulDescOpaque_t* x) const { cublasLtMatmulDescDestroy(x); }
};
struct DestroyPreference {
  void operator()(cublasLtMatmulPreferenceOpaque_t* x) const { cublasLtMatmulPreferenceDestroy(x); }
};
using Layout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, DestroyLayout>;
using Matmul = std::unique_ptr<cublasLtMatmulDescOpaque_t, DestroyMatmul>;
using Preference = std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, DestroyPreference>;

Layout MakeLayout(cudaDataType_t type, int64_t rows, int64_t columns) {
  cublasLtMatrixLayout_t layout =
      nullptr;  // column-major and dense: the leading dimension is the number of rows
  CheckCublas(cublasLtMatrixLayoutCreate(&layout, type, static_cast<uint64_t>(rows),
                                         static_cast<uint64_t>(columns), rows),
              "cublasLtMatrixLayoutCreate");
  return Layout(layout);
}

struct Plan {
  Matmul matmul;
  Layout first, second, out;
  std::optional<cublasLtMatmulAlgo_t> algorithm;  // none: the library has no kernel
};

class Cublas final : public Blas {
 public:
  explicit Cublas(CudaDevice& device) : device_(device) {}

  bool Multiply(const BlasProduct& product, const void* a, const void* b, void* c) override {
    // One at a time also for the sake of the workspace, which a product may use in several kernels.
    std::lock_guard<std::mutex> lock(mutex_);
    const Plan& plan = PlanOf({product, AlignmentOf(a), AlignmentOf(b), AlignmentOf(c)});
    if (!plan.algorithm) return false;
    const float one = 1, zero = 0;
    CheckCublas(cublasLtMatmul(device_.blas(), plan.matmul.get(), &one, b, plan.first.get(), a,
                               plan.second.get(), product.accumulate ? &one : &zero, c, plan.out.get(), c,
                               plan.out.get(), &*plan.algorithm, device_.blas_workspace(),
                               CudaDevice::blas_workspace_bytes(), device_.stream()),
                "cublasLtMatmul");
    return true;
  }

 private:
  const Plan& PlanOf(const Key& key) {
    if (const auto found = by_key_.find(key); found != by_key_.end()) {
      plans_.splice(plans_.begin(), plans_, found->second);
      return found->second->second;
    }
    if (plans_.size() >= kPlans) {
      by_key_.erase(plans_.back().first);
      plans_.pop_back();
    }
    plans_.emplace_front(key, MakePlan(key));
    by_key_.emplace(key, plans_.begin());
    return plans_.front().second;
  }

  Plan MakePlan(const Key& key) {
    const BlasProduct& p = key.product;
    const cudaDataType_t input = TypeOf(p.input), output = TypeOf(p.output);
    Plan plan;
    cublasLtMatmulDesc_t matmul = nullptr;
    // Sums in f32; of f32 inputs in full f32 (the fast modes that round inputs to TF32 have names of their own).
    CheckCublas(cublasLtMatmulDescCreate(&matmul, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                "cublasLtMatmulDescCreate");
    plan.matmul.reset(matmul);
    const cublasOperation_t of_b = p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t of_a = p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    CheckCublas(cublasLtMatmulDescSetAttribute(matmul, CUBLASLT_MATMUL_DESC_TRANSA, &of_b, sizeof(of_b)),
                "cublasLtMatmulDescSetAttribute of the first operand");
    CheckCublas(cublasLtMatmulDescSetAttribute(matmul, CUBLASLT_MATMUL_DESC_TRANSB, &of_a, sizeof(of_a)),
                "cublasLtMatmulDescSetAttribute of the second operand");
    // b in memory is row-major [k, n], or [n, k] where transposed: column-major [n, k], or [k, n].
    plan.first = p.transpose_b ? MakeLayout(input, p.k, p.n) : MakeLayout(input, p.n, p.k);
    plan.second = p.transpose_a ? MakeLayout(input, p.m, p.k) : MakeLayout(input, p.k, p.m);
    plan.out = MakeLayout(output, p.n, p.m);

    cublasLtMatmulPreference_t preference_handle = nullptr;
    CheckCublas(cublasLtMatmulPreferenceCreate(&preference_handle), "cublasLtMatmulPreferenceCreate");
    const Preference preference(preference_handle);
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      CheckCublas(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof(value)),
                  "cublasLtMatmulPreferenceSetAttribute");
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(CudaDevice::blas_workspace_bytes()));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.align_b);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.align_a);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.align_c);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.align_c);
    // Parts of a sum meet in f32 in the workspace, never rounded to the output's type before they are added.
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    cublasLtMatmulHeuristicResult_t result = {};
    int found = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(device_.blas(), matmul, plan.first.get(), plan.second.get(),
                                       plan.out.get(), plan.out.get(), preference.get(), 1, &result, &found);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) CheckCublas(status, "cublasLtMatmulAlgoGetHeuristic");
    if (status == CUBLAS_STATUS_SUCCESS && found > 0 && result.state == CUBLAS_STATUS_SUCCESS) {
      plan.algorithm = result.algo;
    }
    return plan;
  }

  CudaDevice& device_;
  std::mutex mutex_;
  std::list<std::pair<Key, Plan>> plans_;  // most recently used first
  std::unordered_map<Key, std::list<std::pair<Key, Plan>>::iterator, HashKey> by_key_;
};

}  // namespace

std::unique_ptr<Blas> MakeCublas(CudaDevice& device) { return std::make_unique<Cublas>(device); }

}  // namespace cohort::runtime::COHORT_CUDA
