// One CUDA device as runtime/device/device.h wants it, and what kernels need beyond that. For runtime/device/cuda,
// runtime/ops/cuda and communication between devices only: everybody else sees a Device.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/device/connected_device.h"
#include "runtime/device/cuda/pinned_staging.h"
#include "runtime/device/device.h"
#include "runtime/device/host_reader.h"
#include "runtime/device/recording_memory.h"

namespace cohort::runtime {

// What the processor of a device is.
struct CudaTraits {
  int ordinal = 0;
  std::string name;            // "NVIDIA H200"
  int compute_capability = 0;  // 90 for 9.0
  int multiprocessors = 0;     // SMs
  size_t shared_bytes_per_block =
      0;                           // that a kernel may ask for (cudaFuncAttributeMaxDynamicSharedMemorySize)
  size_t shared_bytes_per_sm = 0;  // that the blocks of one SM share
  size_t memory_bytes = 0;         // of the device
  size_t l2_bytes = 0;             // cache
};

// The queue is one CUDA stream, in which everything of this device runs in the order it is enqueued: operations, copies,
// and the taking and giving back of memory, so that a block may be freed while work that uses it is still to run.
// Thread-safe, as CUDA's calls are; the order of calls from several threads is theirs to arrange.
class CudaDevice final : public Device, public ConnectedDevice, public ReadBesideDevice {
 public:
  // ResourceExhausted or Unavailable, with words, where the device cannot be used. `memory_limit`: bytes of this process
  // (see MemoryLimit in memory_limit.h).
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Create(int ordinal, size_t memory_limit);
  ~CudaDevice() override;

  DeviceKind kind() const override { return DeviceKind::kCuda; }
  std::string name() const override;  // "cuda:0"
  std::shared_ptr<void> Allocate(size_t bytes) override;
  size_t allocated_bytes() const override { return allocated_.load(std::memory_order_relaxed); }
  size_t peak_bytes() const override { return peak_.load(std::memory_order_relaxed); }
  void ResetPeak() override;
  int64_t free_bytes() const override;
  bool in_host_memory() const override { return false; }
  void CopyFromHost(const void* from, const Tensor& to) override;
  void CopyToHost(const Tensor& from, void* to) override;
  void CopyFromDevice(const Tensor& from, const Tensor& to) override;
  Ops& ops() override;
  void Synchronize() override;
  bool records() const override;
  std::unique_ptr<Recording> Record(const std::function<void()>& work) override;  // cuda_graph.cc
  absl::Span<const DataType> compute_dtypes() const override { return compute_dtypes_; }
  DataType state_dtype() const override { return DataType::kF32; }
  bool fast_bf16() const override { return traits_.compute_capability >= 80; }

  // ---- other processes' devices: NCCL (connect_devices.cc) ----

  std::string hardware() const override;
  absl::StatusOr<std::unique_ptr<comm::Communicator>> ConnectDirectly(
      std::shared_ptr<comm::Communicator> host) override;

  // ---- reads beside the queue (cuda_host_reader.cc) ----

  absl::StatusOr<std::unique_ptr<HostReader>> MakeHostReader(size_t most_bytes) override;

  // ---- what operations need ----

  const CudaTraits& traits() const { return traits_; }
  // Makes this the device of the calling thread, as every call of CUDA's that names no device expects. Each entry from
  // outside (an operation, a copy, an allocation) begins with it, and nobody relies on what it was before. Costs
  // nothing to speak of where it is that already.
  void MakeCurrent() const;
  // The queue: kernels and cuBLASLt run here.
  cudaStream_t stream() const { return stream_; }
  // One handle and one workspace for all products: in one queue no two run at a time. Made by the first who asks.
  cublasLtHandle_t blas();
  void* blas_workspace();
  static size_t blas_workspace_bytes();
  // Scratch memory of an operation is Allocate's: given back in the queue's order, after the kernels that use it.

  // Pinned memory through which all copies between the host and this device go.
  PinnedStaging& staging() { return *staging_; }

 private:
  explicit CudaDevice(CudaTraits traits, size_t memory_limit);
  absl::Status Open();
  void* Take(size_t bytes);
  void Return(void* block, size_t bytes);
  // Aborts where a recording would not have it.
  void CheckNotCapturing(const char* what) const;

  const CudaTraits traits_;
  const size_t memory_limit_;
  const std::vector<DataType> compute_dtypes_;
  cudaStream_t stream_ = nullptr;
  cudaMemPool_t pool_ = nullptr;
  std::atomic<size_t> allocated_{0};
  std::atomic<size_t> peak_{0};
  std::unique_ptr<PinnedStaging> staging_;
  std::mutex blas_mutex_;
  cublasLtHandle_t blas_ = nullptr;
  std::shared_ptr<void> blas_workspace_;
  std::unique_ptr<Ops> ops_;
  // While Record is at work: whose memory it is, whether the stream is captured, and what was freed meanwhile.
  std::shared_ptr<RecordingMemory> recording_;
  bool capturing_ = false;
  std::vector<std::pair<void*, size_t>> freed_late_;
};

}  // namespace cohort::runtime
