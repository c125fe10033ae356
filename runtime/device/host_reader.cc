#include "runtime/device/host_reader.h"

#include <cstdint>

#include "runtime/tensor.h"

namespace cohort::runtime {
namespace {

// Through the device's queue.
class QueuedReader final : public HostReader {
 public:
  explicit QueuedReader(Device& device) : device_(device) {}

  void Mark() override { device_.Synchronize(); }
  void Read(const void* from, size_t bytes, const std::function<void(const void*)>& take) override {
    if (device_.in_host_memory()) return take(from);
    const std::shared_ptr<void> host = CpuDevice().Allocate(bytes);
    device_.CopyToHost(
        Tensor::Wrap(device_, nullptr, const_cast<void*>(from), {static_cast<int64_t>(bytes)}, DataType::kU8),
        host.get());
    take(host.get());
  }

 private:
  Device& device_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HostReader>> MakeHostReader(Device& device, size_t most_bytes) {
  auto* const beside = dynamic_cast<ReadBesideDevice*>(&device);
  if (beside != nullptr) return beside->MakeHostReader(most_bytes);
  return std::make_unique<QueuedReader>(device);
}

}  // namespace cohort::runtime
