// Devices: where tensors live and operations run. Nothing outside runtime/device and runtime/ops asks which.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "comm/data_type.h"

namespace cohort::runtime {

class Ops;
class Recording;
class Tensor;

// kReference computes everything in f64 with plain loops: the judge of the others. kCpu is what runs where there is no
// kCuda.
enum class DeviceKind : uint8_t { kReference, kCpu, kCuda };

// One device of this process. Thread-safe. Operations of one device run in the order they are enqueued; on
// the CPU the queue runs inline, so an operation is over when its call returns, but callers must not rely on
// it: results reach the host through OnHost and ToHost of runtime/tensor.h, which wait for them.
class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceKind kind() const = 0;
  virtual std::string name() const = 0;

  // The device's memory, 64-byte aligned, from a caching pool: freed blocks are kept for the next of their
  // size. Uninitialised. `bytes` may be 0. Running out aborts with a message.
  virtual std::shared_ptr<void> Allocate(size_t bytes) = 0;
  // Bytes handed out now, and the most there ever were since the last ResetPeak.
  virtual size_t allocated_bytes() const = 0;
  virtual size_t peak_bytes() const = 0;
  virtual void ResetPeak() = 0;
  // Bytes that Allocate could still hand out, as far as can be known: others use the same memory.
  virtual int64_t free_bytes() const = 0;

  // Whether the host reads and writes this memory by its addresses, once Synchronize has returned. Where it does not,
  // an address is a number, good for arithmetic and for this device only.
  virtual bool in_host_memory() const = 0;
  // The bytes of a tensor of this device, from and to memory of the host, after all that was enqueued before. `from`
  // may be changed or freed as soon as CopyFromHost returns; `to` holds the bytes when CopyToHost returns.
  virtual void CopyFromHost(const void* from, const Tensor& to) = 0;
  virtual void CopyToHost(const Tensor& from, void* to) = 0;
  // The bytes of a tensor of another device in a tensor of this one: after all that was enqueued on either, and before
  // what is enqueued on either from now on. By way of the host, where a device knows no shorter one.
  virtual void CopyFromDevice(const Tensor& from, const Tensor& to);

  // The operations of this device (see runtime/ops/ops.h). Their tensors are all of this device.
  virtual Ops& ops() = 0;
  // Waits until everything enqueued is done.
  virtual void Synchronize() = 0;

  // Whether Record gives recordings here.
  virtual bool records() const { return false; }
  // What `work` enqueues here, to be enqueued again as a whole, on the same addresses (recording.h). Calls work twice:
  // as always, from which it is known what memory it takes, and to record it, when nothing runs. Both times it must
  // enqueue the same, wait for nothing and copy nothing from or to the host; nobody else uses the device meanwhile.
  // What it allocates the second time is the recording's, and tensors that it leaves behind hold what the last Replay
  // made. Null where work was called once, as always, and could not be recorded.
  virtual std::unique_ptr<Recording> Record(const std::function<void()>& work);

  // The types a model can compute in here: f32 and bf16, or f64 on the reference.
  virtual absl::Span<const DataType> compute_dtypes() const = 0;
  // The type of optimizer state, norms' statistics and master weights here: f32, or f64 on the reference.
  virtual DataType state_dtype() const = 0;
  // Whether bf16 products are fast here (AMX or AVX512-BF16).
  virtual bool fast_bf16() const = 0;
};

// The process-wide devices. The CPU device uses SetCpuThreads threads for an operation.
Device& ReferenceDevice();
Device& CpuDevice();
// Threads that one CPU operation uses; default: all cores. Results do not depend on it bit for bit only where
// an operation says so.
void SetCpuThreads(int threads);
int CpuThreads();

}  // namespace cohort::runtime
