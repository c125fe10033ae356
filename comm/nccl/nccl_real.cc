// The calls of CUDA and NCCL themselves.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "comm/nccl/nccl_api.h"
#include "comm/nccl/nccl_functions.h"

namespace cohort::comm::nccl {
namespace {

absl::Status CudaStatus(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text =
      absl::StrCat(call, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(text);
  if (error == cudaErrorInvalidDevice) {
    return absl::NotFoundError(absl::StrCat(text, "; CUDA_VISIBLE_DEVICES says which this process has"));
  }
  return absl::InternalError(text);
}

// `handle` may be null where the call has none; its last error is of this process then.
Outcome NcclOutcome(ncclResult_t result, const char* call, ncclComm_t handle = nullptr) {
  if (result == ncclSuccess) return Progress::kDone;
  if (result == ncclInProgress) return Progress::kPending;
  const char* const more = ncclGetLastError(handle);
  const std::string text = absl::StrCat("NCCL: ", call, ": ", ncclGetErrorString(result),
                                        more != nullptr && *more != '\0' ? ": " : "",
                                        more != nullptr ? more : "", "; NCCL_DEBUG=WARN says more");
  if (result == ncclInvalidArgument) return absl::InvalidArgumentError(text);
  return absl::UnavailableError(text);
}

absl::Status NcclStatus(ncclResult_t result, const char* call, ncclComm_t handle = nullptr) {
  return NcclOutcome(result, call, handle).status();
}

ncclDataType_t TypeOf(DataType dtype) {
  switch (dtype) {
    case DataType::kF32:
      return ncclFloat32;
    case DataType::kBF16:
      return ncclBfloat16;
    case DataType::kF16:
      return ncclFloat16;
    case DataType::kF64:
      return ncclFloat64;
    case DataType::kI8:
      return ncclInt8;
    case DataType::kU8:
      return ncclUint8;
    case DataType::kI32:
      return ncclInt32;
    case DataType::kI64:
      return ncclInt64;
  }
  COHORT_CHECK(false, "a data type that NCCL was not told of");
}

ncclRedOp_t OpOf(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return ncclSum;
    case ReduceOp::kMin:
      return ncclMin;
    case ReduceOp::kMax:
      return ncclMax;
    case ReduceOp::kProduct:
      return ncclProd;
  }
  COHORT_CHECK(false, "a reduction that NCCL was not told of");
}

// cuStreamWaitValue32, of the driver: the library is not linked, as machines that build have none.
using WaitValue = CUresult(CUDAAPI*)(CUstream, CUdeviceptr, cuuint32_t, unsigned int);

absl::StatusOr<WaitValue> FindWaitValue() {
  static void* const found = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuStreamWaitValue32", &entry, 12000, cudaEnableDefault, &result);
#else
    const cudaError_t error =
        cudaGetDriverEntryPoint("cuStreamWaitValue32", &entry, cudaEnableDefault, &result);
#endif
    return error == cudaSuccess && result == cudaDriverEntryPointSuccess ? entry : nullptr;
  }();
  if (found == nullptr) {
    return absl::UnimplementedError(
        "the CUDA driver has no cuStreamWaitValue32: install one for CUDA 12 or newer");
  }
  return reinterpret_cast<WaitValue>(found);
}

class RealNccl final : public NcclApi {
 public:
  absl::Status UseDevice(int device) override { return CudaStatus(cudaSetDevice(device), "cudaSetDevice"); }

  absl::StatusOr<void*> Allocate(size_t bytes, Stream stream) override {
    void* memory = nullptr;
    COHORT_RETURN_IF_ERROR(CudaStatus(cudaMallocAsync(&memory, bytes, Queue(stream)), "cudaMallocAsync"));
    return memory;
  }
  absl::Status Free(void* memory, Stream stream) override {
    return CudaStatus(cudaFreeAsync(memory, Queue(stream)), "cudaFreeAsync");
  }
  absl::StatusOr<void*> AllocatePinned(size_t bytes) override {
    void* memory = nullptr;
    COHORT_RETURN_IF_ERROR(CudaStatus(
        cudaHostAlloc(&memory, bytes, cudaHostAllocPortable | cudaHostAllocMapped), "cudaHostAlloc"));
    return memory;
  }
  void FreePinned(void* memory) override { (void)cudaFreeHost(memory); }

  absl::StatusOr<Stream> CreateStream() override {
    // Of another priority than the callers' streams: CUDA lays streams of one priority over a few queues of the
    // hardware where they are many, knows nothing of the order that a wait for a flag makes, and could so put the
    // copies that the flag is raised after behind that wait.
    int least = 0, greatest = 0;
    COHORT_RETURN_IF_ERROR(
        CudaStatus(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange"));
    cudaStream_t stream = nullptr;
    COHORT_RETURN_IF_ERROR(CudaStatus(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest),
                                      "cudaStreamCreateWithPriority"));
    return static_cast<Stream>(stream);
  }
  void DestroyStream(Stream stream) override { (void)cudaStreamDestroy(Queue(stream)); }

  absl::StatusOr<Event> CreateEvent() override {
    cudaEvent_t event = nullptr;
    COHORT_RETURN_IF_ERROR(
        CudaStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags"));
    return static_cast<Event>(event);
  }
  void DestroyEvent(Event event) override { (void)cudaEventDestroy(Mark(event)); }
  absl::Status Record(Event event, Stream stream) override {
    return CudaStatus(cudaEventRecord(Mark(event), Queue(stream)), "cudaEventRecord");
  }
  absl::StatusOr<bool> Query(Event event) override {
    const cudaError_t error = cudaEventQuery(Mark(event));
    if (error == cudaErrorNotReady) return false;
    COHORT_RETURN_IF_ERROR(CudaStatus(error, "cudaEventQuery"));
    return true;
  }
  absl::Status StreamWaitsForEvent(Stream stream, Event event) override {
    return CudaStatus(cudaStreamWaitEvent(Queue(stream), Mark(event), 0), "cudaStreamWaitEvent");
  }
  absl::Status StreamWaitsForFlag(Stream stream, uint32_t* flag, uint32_t value) override {
    COHORT_ASSIGN_OR_RETURN(const WaitValue wait, FindWaitValue());
    void* address = nullptr;
    COHORT_RETURN_IF_ERROR(
        CudaStatus(cudaHostGetDevicePointer(&address, flag, 0), "cudaHostGetDevicePointer"));
    const CUresult result =
        wait(Queue(stream), reinterpret_cast<CUdeviceptr>(address), value, CU_STREAM_WAIT_VALUE_GEQ);
    if (result == CUDA_SUCCESS) return absl::OkStatus();
    return absl::InternalError(
        absl::StrCat("cuStreamWaitValue32: error ", static_cast<int>(result), " of the CUDA driver"));
  }
  absl::Status Copy(void* to, const void* from, size_t bytes, Stream stream) override {
    return CudaStatus(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, Queue(stream)), "cudaMemcpyAsync");
  }

  absl::StatusOr<UniqueId> GetUniqueId() override {
    ncclUniqueId id;
    COHORT_RETURN_IF_ERROR(NcclStatus(ncclGetUniqueId(&id), "ncclGetUniqueId"));
    static_assert(sizeof(id.internal) == sizeof(UniqueId));
    UniqueId bytes;
    std::memcpy(bytes.data(), id.internal, bytes.size());
    return bytes;
  }
  Outcome Init(Handle* handle, int size, const UniqueId& id, int rank) override {
    ncclUniqueId unique;
    std::memcpy(unique.internal, id.data(), id.size());
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t made = nullptr;
    const ncclResult_t result = ncclCommInitRankConfig(&made, size, unique, rank, &config);
    *handle = made;
    return NcclOutcome(result, "ncclCommInitRankConfig");
  }
  Outcome AsyncError(Handle handle) override {
    ncclResult_t error = ncclSuccess;
    COHORT_RETURN_IF_ERROR(NcclStatus(ncclCommGetAsyncError(Group(handle), &error), "ncclCommGetAsyncError"));
    return NcclOutcome(error, "asynchronous error", Group(handle));
  }
  absl::Status GroupStart() override { return NcclStatus(ncclGroupStart(), "ncclGroupStart"); }
  Outcome GroupEnd() override { return NcclOutcome(ncclGroupEnd(), "ncclGroupEnd"); }

  absl::Status Enqueue(const Call& call, Handle handle, Stream stream) override {
    const ncclComm_t comm = Group(handle);
    const cudaStream_t queue = Queue(stream);
    const ncclDataType_t type = TypeOf(call.dtype);
    switch (call.kind) {
      case CallKind::kAllReduce:
        return NcclStatus(ncclAllReduce(call.from, call.to, call.count, type, OpOf(call.op), comm, queue),
                          "ncclAllReduce", comm);
      case CallKind::kReduceScatter:
        return NcclStatus(ncclReduceScatter(call.from, call.to, call.count, type, OpOf(call.op), comm, queue),
                          "ncclReduceScatter", comm);
      case CallKind::kAllGather:
        return NcclStatus(ncclAllGather(call.from, call.to, call.count, type, comm, queue), "ncclAllGather",
                          comm);
      case CallKind::kBroadcast:
        return NcclStatus(ncclBroadcast(call.from, call.to, call.count, type, call.peer, comm, queue),
                          "ncclBroadcast", comm);
      case CallKind::kReduce:
        return NcclStatus(
            ncclReduce(call.from, call.to, call.count, type, OpOf(call.op), call.peer, comm, queue),
            "ncclReduce", comm);
      case CallKind::kSend:
        return NcclStatus(ncclSend(call.from, call.count, type, call.peer, comm, queue), "ncclSend", comm);
      case CallKind::kRecv:
        return NcclStatus(ncclRecv(call.to, call.count, type, call.peer, comm, queue), "ncclRecv", comm);
    }
    COHORT_CHECK(false, "an unknown call of NCCL");
  }

  Outcome Finalize(Handle handle) override {
    return NcclOutcome(ncclCommFinalize(Group(handle)), "ncclCommFinalize", Group(handle));
  }
  absl::Status Destroy(Handle handle) override {
    return NcclStatus(ncclCommDestroy(Group(handle)), "ncclCommDestroy");
  }
  absl::Status Abort(Handle handle) override {
    return NcclStatus(ncclCommAbort(Group(handle)), "ncclCommAbort");
  }

 private:
  static cudaStream_t Queue(Stream stream) { return static_cast<cudaStream_t>(stream); }
  static cudaEvent_t Mark(Event event) { return static_cast<cudaEvent_t>(event); }
  static ncclComm_t Group(Handle handle) { return static_cast<ncclComm_t>(handle); }
};

}  // namespace

absl::StatusOr<NcclApi*> OpenNccl() {
  COHORT_RETURN_IF_ERROR(LoadNccl());
  static RealNccl real;
  return &real;
}

}  // namespace cohort::comm::nccl
