// Compiled with emulator.h before everything else, as the kernels are.
#include "tests/runtime/ops/cuda/emulated_device.h"

#include <cstring>
#include <utility>
#include <vector>

#include "comm/check.h"
#include "runtime/ops/cuda/cuda_ops.h"
#include "runtime/tensor.h"

namespace cohort::runtime {
namespace {

constexpr size_t kAlignment = 256;
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kGuard = 0;  // its own red zones see reads too
#else
constexpr size_t kGuard = 256;
#endif
constexpr unsigned char kMark = 0xA5;

class EmulatedDevice final : public Device {
 public:
  EmulatedDevice(std::string name, emulated_cuda::Queue queue, emulator::Schedule schedule)
      : name_(std::move(name)),
        ops_(
            *this, queue, [schedule] { emulator::schedule = schedule; }, nullptr) {}

  DeviceKind kind() const override { return DeviceKind::kCuda; }
  std::string name() const override { return name_; }
  std::shared_ptr<void> Allocate(size_t bytes) override {
    void* block = nullptr;
    COHORT_CHECK(posix_memalign(&block, kAlignment, bytes + 2 * kGuard) == 0, "no memory");
    char* data = static_cast<char*>(block) + kGuard;
    std::memset(block, kMark, kGuard);
    std::memset(data, 0xff, bytes);  // NaN: nobody may rely on what was there
    std::memset(data + bytes, kMark, kGuard);
    return std::shared_ptr<void>(data, [bytes, block](void* p) {
      const auto* before = static_cast<const unsigned char*>(block);
      const auto* after = static_cast<const unsigned char*>(p) + bytes;
      for (size_t i = 0; i < kGuard; ++i) {
        COHORT_CHECK(before[i] == kMark && after[i] == kMark, "a kernel wrote outside a block of %zu bytes",
                     bytes);
      }
      std::free(block);
    });
  }
  size_t allocated_bytes() const override { return 0; }
  size_t peak_bytes() const override { return 0; }
  void ResetPeak() override {}
  int64_t free_bytes() const override { return int64_t{1} << 30; }
  bool in_host_memory() const override { return true; }
  void CopyFromHost(const void* from, const Tensor& to) override { Move(from, to.raw(), to.bytes()); }
  void CopyToHost(const Tensor& from, void* to) override { Move(from.raw(), to, from.bytes()); }
  void CopyFromDevice(const Tensor& from, const Tensor& to) override {
    Move(from.raw(), to.raw(), to.bytes());
  }
  Ops& ops() override { return ops_; }
  void Synchronize() override {}
  absl::Span<const DataType> compute_dtypes() const override { return kTypes; }
  DataType state_dtype() const override { return DataType::kF32; }
  bool fast_bf16() const override { return true; }

 private:
  static constexpr DataType kTypes[] = {DataType::kF32, DataType::kBF16};
  static void Move(const void* from, void* to, size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }

  const std::string name_;
  emulated_cuda::CudaOps ops_;
};

}  // namespace

Device& EmulatedA100() {
  static Device* const device = new EmulatedDevice(
      "emulated A100",
      {.stream = nullptr, .multiprocessors = 3, .shared_limit = 163 << 10, .compute_capability = 80},
      {.descending = false,
       .copies = emulator::Schedule::When::kAtOnce,
       .products = emulator::Schedule::When::kAtOnce});
  return *device;
}

Device& EmulatedH200() {
  static Device* const device = new EmulatedDevice(
      "emulated H200",
      {.stream = nullptr, .multiprocessors = 5, .shared_limit = 227 << 10, .compute_capability = 90},
      {.descending = true,
       .copies = emulator::Schedule::When::kEither,
       .products = emulator::Schedule::When::kLate});
  return *device;
}

}  // namespace cohort::runtime
