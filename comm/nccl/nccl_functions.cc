// NCCL's functions, found at their first call: a program that could use devices, and has none, needs no libnccl where it
// runs. Each function that nccl_real.cc calls is defined here, and hands over to the library's own. To call another one,
// add its line.
#include "comm/nccl/nccl_functions.h"

#include <dlfcn.h>
#include <nccl.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace cohort::comm::nccl {
namespace {

struct Loaded {
  void* library = nullptr;
  std::string problem;
};

// Where the loader finds it, or where it lay when this was built.
const Loaded& Library() {
  static const auto* const loaded = [] {
    auto* const found = new Loaded;
    for (const char* name : {"libnccl.so.2", COHORT_NCCL_PATH}) {
      if (found->library == nullptr) found->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
    if (found->library == nullptr) found->problem = dlerror();
    return found;
  }();
  return *loaded;
}

void* Find(const char* name) {
  return Library().library == nullptr ? nullptr : dlsym(Library().library, name);
}

}  // namespace

absl::Status LoadNccl() {
  if (Library().library != nullptr) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("NCCL cannot be loaded (", Library().problem,
                                             "): LD_LIBRARY_PATH may name the folder of libnccl.so.2"));
}

}  // namespace cohort::comm::nccl

#define COHORT_NCCL_FUNCTION(result, function, missing, parameters, arguments)                           \
  extern "C" result function parameters {                                                                \
    static const auto call = reinterpret_cast<decltype(&function)>(cohort::comm::nccl::Find(#function)); \
    return call == nullptr ? missing : call arguments;                                                   \
  }
#define COHORT_NCCL_CALL(function, parameters, arguments) \
  COHORT_NCCL_FUNCTION(ncclResult_t, function, ncclSystemError, parameters, arguments)

COHORT_NCCL_FUNCTION(const char*, ncclGetErrorString, "libnccl has no such function", (ncclResult_t result),
                     (result))
COHORT_NCCL_FUNCTION(const char*, ncclGetLastError, nullptr, (ncclComm_t comm), (comm))
COHORT_NCCL_CALL(ncclGetUniqueId, (ncclUniqueId * id), (id))
COHORT_NCCL_CALL(ncclCommInitRankConfig,
                 (ncclComm_t * comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config),
                 (comm, ranks, id, rank, config))
COHORT_NCCL_CALL(ncclCommGetAsyncError, (ncclComm_t comm, ncclResult_t* error), (comm, error))
COHORT_NCCL_CALL(ncclCommFinalize, (ncclComm_t comm), (comm))
COHORT_NCCL_CALL(ncclCommDestroy, (ncclComm_t comm), (comm))
COHORT_NCCL_CALL(ncclCommAbort, (ncclComm_t comm), (comm))
COHORT_NCCL_CALL(ncclGroupStart, (), ())
COHORT_NCCL_CALL(ncclGroupEnd, (), ())
COHORT_NCCL_CALL(ncclAllReduce,
                 (const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                  ncclComm_t comm, cudaStream_t stream),
                 (from, to, count, type, op, comm, stream))
COHORT_NCCL_CALL(ncclReduceScatter,
                 (const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                  ncclComm_t comm, cudaStream_t stream),
                 (from, to, count, type, op, comm, stream))
COHORT_NCCL_CALL(ncclAllGather,
                 (const void* from, void* to, size_t count, ncclDataType_t type, ncclComm_t comm,
                  cudaStream_t stream),
                 (from, to, count, type, comm, stream))
COHORT_NCCL_CALL(ncclBroadcast,
                 (const void* from, void* to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                  cudaStream_t stream),
                 (from, to, count, type, root, comm, stream))
COHORT_NCCL_CALL(ncclReduce,
                 (const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op, int root,
                  ncclComm_t comm, cudaStream_t stream),
                 (from, to, count, type, op, root, comm, stream))
COHORT_NCCL_CALL(ncclSend,
                 (const void* from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                  cudaStream_t stream),
                 (from, count, type, peer, comm, stream))
COHORT_NCCL_CALL(ncclRecv,
                 (void* to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                  cudaStream_t stream),
                 (to, count, type, peer, comm, stream))
