#include "runtime/device/device.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "comm/check.h"
#include "runtime/device/caching_allocator.h"
#include "runtime/device/cpu_features.h"
#include "runtime/device/host_memory.h"
#include "runtime/device/recording.h"
#include "runtime/ops/cpu/cpu_ops.h"
#include "runtime/ops/reference/reference_ops.h"
#include "runtime/tensor.h"

namespace cohort::runtime {
namespace {

// Host memory and operations that are over when they return.
template <typename OpsType>
class HostDevice final : public Device {
 public:
  HostDevice(DeviceKind kind, const char* name, std::vector<DataType> compute_dtypes, DataType state_dtype,
             bool fast_bf16)
      : kind_(kind),
        name_(name),
        compute_dtypes_(std::move(compute_dtypes)),
        state_dtype_(state_dtype),
        fast_bf16_(fast_bf16) {}

  DeviceKind kind() const override { return kind_; }
  std::string name() const override { return name_; }
  std::shared_ptr<void> Allocate(size_t bytes) override { return memory_.Allocate(bytes); }
  size_t allocated_bytes() const override { return memory_.allocated_bytes(); }
  size_t peak_bytes() const override { return memory_.peak_bytes(); }
  void ResetPeak() override { memory_.ResetPeak(); }
  int64_t free_bytes() const override { return FreeHostMemory(); }
  bool in_host_memory() const override { return true; }
  void CopyFromHost(const void* from, const Tensor& to) override {
    if (to.bytes() > 0) std::memcpy(to.raw(), from, to.bytes());
  }
  void CopyToHost(const Tensor& from, void* to) override {
    if (from.bytes() > 0) std::memcpy(to, from.raw(), from.bytes());
  }
  void CopyFromDevice(const Tensor& from, const Tensor& to) override {
    from.device().CopyToHost(from, to.raw());
  }
  Ops& ops() override { return ops_; }
  void Synchronize() override {}
  absl::Span<const DataType> compute_dtypes() const override { return compute_dtypes_; }
  DataType state_dtype() const override { return state_dtype_; }
  bool fast_bf16() const override { return fast_bf16_; }

 private:
  const DeviceKind kind_;
  const char* const name_;
  const std::vector<DataType> compute_dtypes_;
  const DataType state_dtype_;
  const bool fast_bf16_;
  CachingAllocator memory_;
  OpsType ops_;
};

// The cores this process may run on (mpirun binds ranks to some of them).
int AvailableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

std::atomic<int>& Threads() {
  static std::atomic<int> threads{AvailableCores()};
  return threads;
}

}  // namespace

void Device::CopyFromDevice(const Tensor& from, const Tensor& to) {
  if (from.device().in_host_memory()) return CopyFromHost(from.raw(), to);
  const std::shared_ptr<void> host = CpuDevice().Allocate(from.bytes());
  from.device().CopyToHost(from, host.get());
  CopyFromHost(host.get(), to);
}

std::unique_ptr<Recording> Device::Record(const std::function<void()>& work) {
  work();
  return nullptr;
}

// Never destroyed: tensors in static storage may be freed after everything else.
Device& ReferenceDevice() {
  static Device* const device = new HostDevice<ReferenceOps>(DeviceKind::kReference, "reference",
                                                             {DataType::kF64}, DataType::kF64, false);
  return *device;
}

Device& CpuDevice() {
  static Device* const device =
      new HostDevice<CpuOps>(DeviceKind::kCpu, "cpu", {DataType::kF32, DataType::kBF16}, DataType::kF32,
                             ActiveCpuIsa() == CpuIsa::kAmx);
  return *device;
}

void SetCpuThreads(int threads) {
  COHORT_CHECK(threads >= 1, "the CPU device needs at least one thread, not %d", threads);
  Threads().store(threads, std::memory_order_relaxed);
}

int CpuThreads() { return Threads().load(std::memory_order_relaxed); }

}  // namespace cohort::runtime
