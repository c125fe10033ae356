#include "runtime/device/cuda/cuda_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "runtime/device/cuda/cuda_event.h"
#include "runtime/device/cuda/cuda_status.h"
#include "runtime/device/cuda/policy.h"
#include "runtime/ops/cuda/make_cuda_ops.h"
#include "runtime/ops/ops.h"
#include "runtime/tensor.h"

namespace cohort::runtime {
namespace {

absl::StatusOr<CudaTraits> TraitsOf(int ordinal) {
  cudaDeviceProp properties;
  COHORT_RETURN_IF_ERROR(CudaStatus(cudaGetDeviceProperties(&properties, ordinal), "cudaGetDeviceProperties",
                                    absl::StrCat("cuda:", ordinal)));
  return CudaTraits{.ordinal = ordinal,
                    .name = properties.name,
                    .compute_capability = 10 * properties.major + properties.minor,
                    .multiprocessors = properties.multiProcessorCount,
                    .shared_bytes_per_block = properties.sharedMemPerBlockOptin,
                    .shared_bytes_per_sm = properties.sharedMemPerMultiprocessor,
                    .memory_bytes = properties.totalGlobalMem,
                    .l2_bytes = static_cast<size_t>(properties.l2CacheSize)};
}

size_t Rounded(size_t bytes) {
  return (std::max<size_t>(bytes, 1) + cuda_policy::kAlignment - 1) / cuda_policy::kAlignment *
         cuda_policy::kAlignment;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Create(int ordinal, size_t memory_limit) {
  COHORT_ASSIGN_OR_RETURN(CudaTraits traits, TraitsOf(ordinal));
  if (traits.compute_capability < cuda_policy::kLeastComputeCapability) {
    return absl::UnavailableError(
        absl::StrFormat("cuda:%d is a %s of compute capability %.1f: bf16 needs 8.0 (A100) or newer; use "
                        "another device, or the CPU",
                        ordinal, traits.name, traits.compute_capability / 10.0));
  }
  std::unique_ptr<CudaDevice> device(new CudaDevice(std::move(traits), memory_limit));
  COHORT_RETURN_IF_ERROR(device->Open());
  return device;
}

CudaDevice::CudaDevice(CudaTraits traits, size_t memory_limit)
    : traits_(std::move(traits)),
      memory_limit_(memory_limit),
      compute_dtypes_{DataType::kF32, DataType::kBF16} {}

absl::Status CudaDevice::Open() {
  const auto on = [&](cudaError_t error, const char* call) { return CudaStatus(error, call, name()); };
  COHORT_RETURN_IF_ERROR(on(cudaSetDevice(traits_.ordinal), "cudaSetDevice"));
  // Beside the default stream of old, which waits for and stops all others.
  COHORT_RETURN_IF_ERROR(
      on(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"));
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = traits_.ordinal;
  COHORT_RETURN_IF_ERROR(on(cudaMemPoolCreate(&pool_, &properties), "cudaMemPoolCreate"));
  // More than this the pool gives back at the next synchronization.
  uint64_t keeps = memory_limit_;
  COHORT_RETURN_IF_ERROR(
      on(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keeps), "cudaMemPoolSetAttribute"));
  ops_ = MakeCudaOps(*this);
  staging_ = std::make_unique<PinnedStaging>();
  return staging_->Open(cuda_policy::kStagingBuffers, cuda_policy::kStagingBytes);
}

CudaDevice::~CudaDevice() {
  MakeCurrent();
  ops_.reset();
  blas_workspace_.reset();
  if (blas_ != nullptr) cublasLtDestroy(blas_);
  staging_.reset();
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  if (pool_ != nullptr) cudaMemPoolDestroy(pool_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

std::string CudaDevice::name() const { return absl::StrCat("cuda:", traits_.ordinal); }

void CudaDevice::MakeCurrent() const { CheckCuda(cudaSetDevice(traits_.ordinal), "cudaSetDevice"); }

std::shared_ptr<void> CudaDevice::Allocate(size_t bytes) {
  if (capturing_) return recording_->Allocate(bytes);
  const size_t block_bytes = Rounded(bytes);
  std::shared_ptr<void> block(Take(block_bytes),
                              [this, block_bytes](void* block) { Return(block, block_bytes); });
  return recording_ == nullptr ? block : recording_->Note(std::move(block), bytes);
}

void* CudaDevice::Take(size_t bytes) {
  MakeCurrent();
  const size_t allocated = allocated_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  void* block = nullptr;
  cudaError_t error = cudaErrorMemoryAllocation;
  if (allocated <= memory_limit_) {
    error = cudaMallocFromPoolAsync(&block, bytes, pool_, stream_);
    if (error == cudaErrorMemoryAllocation) {
      // What was freed in the queue's order may still be waiting for its place there.
      cudaGetLastError();
      Synchronize();
      CheckCuda(cudaMemPoolTrimTo(pool_, 0), "cudaMemPoolTrimTo");
      error = cudaMallocFromPoolAsync(&block, bytes, pool_, stream_);
    }
  }
  if (error != cudaSuccess) {
    EndWithStatus(CudaStatus(
        error, "cudaMallocFromPoolAsync",
        absl::StrFormat("%u bytes on %s (%s), where %u bytes are in use of the %u that this "
                        "process may use (COHORT_CUDA_MEMORY_GB) and %d are free",
                        bytes, name(), traits_.name, allocated - bytes, memory_limit_, free_bytes())));
  }
  size_t peak = peak_.load(std::memory_order_relaxed);
  while (allocated > peak && !peak_.compare_exchange_weak(peak, allocated, std::memory_order_relaxed)) {
  }
  return block;
}

void CudaDevice::Return(void* block, size_t bytes) {
  if (capturing_) return freed_late_.emplace_back(block, bytes), void();
  // Of a tensor in static storage, when the process ends: CUDA is gone before it.
  const cudaError_t error = cudaSetDevice(traits_.ordinal);
  if (error == cudaErrorCudartUnloading) return;
  CheckCuda(error, "cudaSetDevice");
  CheckCuda(cudaFreeAsync(block, stream_), "cudaFreeAsync");
  allocated_.fetch_sub(bytes, std::memory_order_relaxed);
}

void CudaDevice::ResetPeak() {
  peak_.store(allocated_.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

// What the limit leaves, and no more than the driver has free beside what the pool keeps unused.
int64_t CudaDevice::free_bytes() const {
  MakeCurrent();
  size_t free = 0, total = 0;
  CheckCuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  uint64_t reserved = 0, used = 0;
  CheckCuda(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrReservedMemCurrent, &reserved),
            "cudaMemPoolGetAttribute");
  CheckCuda(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemCurrent, &used), "cudaMemPoolGetAttribute");
  const auto within_limit = static_cast<int64_t>(memory_limit_) - static_cast<int64_t>(allocated_bytes());
  return std::max<int64_t>(0,
                           std::min<int64_t>(within_limit, static_cast<int64_t>(free + (reserved - used))));
}

void CudaDevice::CopyFromHost(const void* from, const Tensor& to) {
  CheckNotCapturing("a copy from the host");
  MakeCurrent();
  const absl::Status status = staging_->CopyIn(stream_, from, to.raw(), to.bytes());
  if (!status.ok())
    EndWithStatus(absl::Status(status.code(), absl::StrCat(to.DebugString(), ": ", status.message())));
}

void CudaDevice::CopyToHost(const Tensor& from, void* to) {
  CheckNotCapturing("a copy to the host");
  MakeCurrent();
  const absl::Status status = staging_->CopyOut(stream_, from.raw(), to, from.bytes());
  if (!status.ok()) {
    EndWithStatus(absl::Status(status.code(), absl::StrCat(from.DebugString(), ": ", status.message())));
  }
}

void CudaDevice::CopyFromDevice(const Tensor& from, const Tensor& to) {
  const auto* const source = dynamic_cast<const CudaDevice*>(&from.device());
  if (source == nullptr) return Device::CopyFromDevice(from, to);
  CheckNotCapturing("a copy from another device");
  source->MakeCurrent();
  CudaEvent made;
  made.Record(source->stream_);
  MakeCurrent();
  made.MakeWait(stream_);
  CheckCuda(cudaMemcpyPeerAsync(to.raw(), traits_.ordinal, from.raw(), source->traits_.ordinal, to.bytes(),
                                stream_),
            "cudaMemcpyPeerAsync", from, to);
  CudaEvent copied;
  copied.Record(stream_);
  copied.MakeWait(source->stream_);  // which may give the memory to others then
}

Ops& CudaDevice::ops() {
  COHORT_CHECK(ops_ != nullptr, "%s has no operations", name().c_str());
  return *ops_;
}

void CudaDevice::CheckNotCapturing(const char* what) const {
  COHORT_CHECK(!capturing_, "%s: %s in the middle of work that is recorded", name().c_str(), what);
}

bool CudaDevice::records() const {
  const char* const asked = std::getenv("COHORT_CUDA_GRAPHS");
  return asked == nullptr || std::strcmp(asked, "0") != 0;
}

void CudaDevice::Synchronize() {
  CheckNotCapturing("a wait");
  MakeCurrent();
  CudaEvent all;
  all.Record(stream_);
  all.Wait();
}

cublasLtHandle_t CudaDevice::blas() {
  const std::lock_guard<std::mutex> lock(blas_mutex_);
  if (blas_ == nullptr) {
    MakeCurrent();
    CheckCublas(cublasLtCreate(&blas_), "cublasLtCreate");
  }
  return blas_;
}

void* CudaDevice::blas_workspace() {
  const std::lock_guard<std::mutex> lock(blas_mutex_);
  if (blas_workspace_ == nullptr) blas_workspace_ = Allocate(cuda_policy::kBlasWorkspaceBytes);
  return blas_workspace_.get();
}

size_t CudaDevice::blas_workspace_bytes() { return cuda_policy::kBlasWorkspaceBytes; }

}  // namespace cohort::runtime
