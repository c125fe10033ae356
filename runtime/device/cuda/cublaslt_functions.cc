// cuBLASLt's functions, found at their first call. The library is half a gigabyte whose addresses are patched when it
// is loaded: 0.07 s and 200 MB of each process that is linked with it, whether it computes on a GPU or not. So nothing
// is: each function that we call is defined here, and hands over to the library's own. To call another one, add its
// line.
#include <cublasLt.h>
#include <dlfcn.h>

#include <cstdio>

namespace {

void* Library() {
  // Where the loader finds it, or where the toolkit lay that this was built with.
  static void* const library = [] {
    void* found = nullptr;
    for (const char* name : {COHORT_CUBLASLT_NAME, COHORT_CUBLASLT_PATH}) {
      if (found == nullptr) found = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
    if (found == nullptr) {
      std::fprintf(stderr, "CUDA: %s cannot be loaded (%s): LD_LIBRARY_PATH may name its folder\n",
                   COHORT_CUBLASLT_NAME, dlerror());
    }
    return found;
  }();
  return library;
}

void* Find(const char* name) { return Library() == nullptr ? nullptr : dlsym(Library(), name); }

}  // namespace

// What a function returns where there is no library.
constexpr cublasStatus_t kMissing = CUBLAS_STATUS_NOT_INITIALIZED;

#define COHORT_CUBLASLT(result, function, missing, parameters, arguments)            \
  extern "C" result CUBLASWINAPI function parameters {                               \
    static const auto call = reinterpret_cast<decltype(&function)>(Find(#function)); \
    return call == nullptr ? missing : call arguments;                               \
  }

COHORT_CUBLASLT(cublasStatus_t, cublasLtCreate, kMissing, (cublasLtHandle_t * handle), (handle))
COHORT_CUBLASLT(cublasStatus_t, cublasLtDestroy, kMissing, (cublasLtHandle_t handle), (handle))
COHORT_CUBLASLT(const char*, cublasLtGetStatusName, "no cuBLASLt", (cublasStatus_t status), (status))
COHORT_CUBLASLT(const char*, cublasLtGetStatusString, "the library was not found", (cublasStatus_t status),
                (status))
COHORT_CUBLASLT(cublasStatus_t, cublasLtMatmulDescCreate, kMissing,
                (cublasLtMatmulDesc_t * description, cublasComputeType_t compute, cudaDataType_t scale),
                (description, compute, scale))
COHORT_CUBLASLT(cublasStatus_t, cublasLtMatmulDescDestroy, kMissing, (cublasLtMatmulDesc_t description),
                (description))
COHORT_CUBLASLT(cublasStatus_t, cublasLtMatmulDescSetAttribute, kMissing,
                (cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t attribute,
                 const void* value, size_t size),
                (description, attribute, value, size))
COHORT_CUBLASLT(cublasStatus_t, cublasLtMatrixLayoutCreate, kMissing,
                (cublasLtMatrixLayout_t * layout, cudaDataType type, uint64_t rows, uint64_t columns,
                 int64_t stride),
                (layout, type, rows, columns, stride))
COHORT_CUBLASLT(cublasStatus_t, cublasLtMatrixLayoutDestroy, kMissing, (cublasLtMatrixLayout_t layout),
                (layout))
COHORT_CUBLASLT(cublasStatus_t, cublasLtMatmulPreferenceCreate, kMissing,
                (cublasLtMatmulPreference_t * preference), (preference))
COHORT_CUBLASLT(cublasStatus_t, cublasLtMatmulPreferenceDestroy, kMissing,
                (cublasLtMatmulPreference_t preference), (preference))
COHORT_CUBLASLT(cublasStatus_t, cublasLtMatmulPreferenceSetAttribute, kMissing,
                (cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
                 const void* value, size_t size),
                (preference, attribute, value, size))
COHORT_CUBLASLT(cublasStatus_t, cublasLtMatmulAlgoGetHeuristic, kMissing,
                (cublasLtHandle_t handle, cublasLtMatmulDesc_t description, cublasLtMatrixLayout_t a,
                 cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                 cublasLtMatmulPreference_t preference, int wanted, cublasLtMatmulHeuristicResult_t results[],
                 int* found),
                (handle, description, a, b, c, d, preference, wanted, results, found))
COHORT_CUBLASLT(cublasStatus_t, cublasLtMatmul, kMissing,
                (cublasLtHandle_t handle, cublasLtMatmulDesc_t description, const void* alpha, const void* a,
                 cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                 const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                 cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                 size_t workspace_bytes, cudaStream_t stream),
                (handle, description, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout,
                 algorithm, workspace, workspace_bytes, stream))
