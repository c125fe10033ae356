#include "tests/runtime/device/far_device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/device/connected_device.h"
#include "runtime/device/host_reader.h"
#include "runtime/device/recording.h"
#include "runtime/device/recording_memory.h"
#include "tests/runtime/device/far_ops.h"
#include "tests/runtime/device/late_queue.h"

namespace cohort::runtime {
namespace {

constexpr size_t kMemory = size_t{2} << 30;  // pages that nobody writes are not there
constexpr size_t kAddresses = 2 * kMemory;   // blocks that are freed keep theirs, for blocks of the same size
constexpr size_t kAlignment = 256;

// A counter of one field of FarCalls.
using Count = std::atomic<int64_t>;

// Work that the queue kept.
class FarRecording final : public Recording {
 public:
  FarRecording(LateQueue& queue, Count& replays, std::vector<std::function<void()>> work,
               std::shared_ptr<void> memory)
      : queue_(queue),
        replays_(replays),
        work_(std::make_shared<const std::vector<std::function<void()>>>(std::move(work))),
        memory_(std::move(memory)) {}
  void Replay() override {
    ++replays_;
    queue_.Push([work = work_, memory = memory_] {
      for (const auto& one : *work) one();
    });
  }

 private:
  LateQueue& queue_;
  Count& replays_;
  const std::shared_ptr<const std::vector<std::function<void()>>> work_;
  const std::shared_ptr<void> memory_;
};

// What was pushed after Mark has not run yet, as far as nobody else has asked for it.
class FarReader final : public HostReader {
 public:
  FarReader(LateQueue& queue, std::function<void*(const void*)> near)
      : queue_(queue), near_(std::move(near)) {}
  void Mark() override { mark_ = queue_.pushed(); }
  void Read(const void* from, size_t bytes, const std::function<void(const void*)>& take) override {
    queue_.DrainTo(mark_);
    const auto* const near = static_cast<const char*>(near_(from));
    take(std::vector<char>(near, near + bytes).data());
  }

 private:
  LateQueue& queue_;
  const std::function<void*(const void*)> near_;
  std::atomic<int64_t> mark_{0};
};

class Far final : public Device, public ConnectedDevice, public ReadBesideDevice {
 public:
  Far() : ops_(*this, queue_) {
    const int file = memfd_create("far device", MFD_CLOEXEC);
    COHORT_CHECK(file >= 0 && ftruncate(file, static_cast<off_t>(kAddresses)) == 0, "no memory file");
    far_ = static_cast<char*>(mmap(nullptr, kAddresses, PROT_NONE, MAP_SHARED, file, 0));
    near_ = static_cast<char*>(mmap(nullptr, kAddresses, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    COHORT_CHECK(far_ != MAP_FAILED && near_ != MAP_FAILED, "no room for %zu bytes twice", kAddresses);
    close(file);
    ops_.SetDistance(near_ - far_);
  }

  DeviceKind kind() const override { return DeviceKind::kCuda; }
  std::string name() const override { return "far"; }
  std::string hardware() const override {
    return hardware_.empty() ? absl::StrCat("far device of process ", getpid()) : hardware_;
  }

  std::shared_ptr<void> Allocate(size_t bytes) override {
    ++allocations_;
    if (queue_.recording()) return recording_->Allocate(bytes);
    const std::shared_ptr<void> block =
        Take((std::max<size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment);
    return recording_ == nullptr ? block : recording_->Note(block, bytes);
  }
  std::shared_ptr<void> Take(size_t block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<char*>& free = free_[block];
    char* address = far_ + used_;
    if (!free.empty()) {
      address = free.back();
      free.pop_back();
    } else {
      used_ += block;
      COHORT_CHECK(used_ <= kAddresses, "the far device's %zu bytes of addresses are used up", kAddresses);
    }
    allocated_ += block;
    COHORT_CHECK(allocated_ <= kMemory, "the far device's %zu bytes are used up", kMemory);
    peak_ = std::max(peak_, allocated_);
    return std::shared_ptr<void>(address, [this, block](void* freed) {
      const std::lock_guard<std::mutex> lock(mutex_);
      allocated_ -= block;
      free_[block].push_back(static_cast<char*>(freed));
    });
  }
  size_t allocated_bytes() const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return allocated_;
  }
  size_t peak_bytes() const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return peak_;
  }
  void ResetPeak() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    peak_ = allocated_;
  }
  int64_t free_bytes() const override { return static_cast<int64_t>(kMemory - allocated_bytes()); }

  bool in_host_memory() const override { return false; }
  void CopyFromHost(const void* from, const Tensor& to) override {
    COHORT_CHECK(&to.device() == this, "a copy to %s", to.DebugString().c_str());
    COHORT_CHECK(!queue_.recording(), "a copy from the host in the middle of work that is recorded");
    ++copies_from_host_;
    if (to.bytes() == 0) return;
    const auto* const bytes = static_cast<const char*>(from);
    queue_.Push([copy = std::vector<char>(bytes, bytes + to.bytes()), twin = ops_.TwinOf(to)] {
      std::memcpy(twin.raw(), copy.data(), copy.size());
    });
  }
  void CopyToHost(const Tensor& from, void* to) override {
    COHORT_CHECK(&from.device() == this, "a copy of %s", from.DebugString().c_str());
    ++copies_to_host_;
    queue_.Drain();
    if (from.bytes() > 0) std::memcpy(to, ops_.TwinOf(from).raw(), from.bytes());
  }

  absl::StatusOr<std::unique_ptr<comm::Communicator>> ConnectDirectly(
      std::shared_ptr<comm::Communicator> host) override {
    if (connect_) return connect_(std::move(host));
    return absl::UnimplementedError("nothing leads from one far device to another");
  }
  absl::StatusOr<std::unique_ptr<HostReader>> MakeHostReader(size_t /*most_bytes*/) override {
    return std::make_unique<FarReader>(queue_, [this](const void* address) { return Near(address); });
  }
  void SetConnect(ConnectFar connect, std::string hardware) {
    connect_ = std::move(connect);
    hardware_ = std::move(hardware);
  }
  void* Near(const void* address) const {
    auto* const byte = static_cast<char*>(const_cast<void*>(address));
    return byte >= far_ && byte < far_ + kAddresses ? near_ + (byte - far_) : byte;
  }

  Ops& ops() override { return ops_; }
  void Synchronize() override {
    ++waits_;
    queue_.Drain();
  }
  bool records() const override { return true; }
  std::unique_ptr<Recording> Record(const std::function<void()>& work) override {
    ++recordings_;
    std::vector<std::function<void()>> recorded;
    const std::shared_ptr<void> block = RehearseAndRecord(
        *this, recording_, work, [this] { queue_.BeginRecording(); },
        [&] { recorded = queue_.EndRecording(); });
    return std::make_unique<FarRecording>(queue_, replays_, std::move(recorded), block);
  }
  FarCalls calls() const {
    return {allocations_, copies_from_host_, copies_to_host_, waits_, queue_.pushed(), recordings_, replays_};
  }
  absl::Span<const DataType> compute_dtypes() const override { return CpuDevice().compute_dtypes(); }
  DataType state_dtype() const override { return CpuDevice().state_dtype(); }
  bool fast_bf16() const override { return CpuDevice().fast_bf16(); }

 private:
  LateQueue queue_;
  FarOps ops_;
  char* far_ = nullptr;
  char* near_ = nullptr;
  mutable std::mutex mutex_;
  std::map<size_t, std::vector<char*>> free_;  // by size
  size_t used_ = 0, allocated_ = 0, peak_ = 0;
  std::shared_ptr<RecordingMemory> recording_;  // while Record is at work
  Count allocations_{0}, copies_from_host_{0}, copies_to_host_{0}, waits_{0}, recordings_{0}, replays_{0};
  ConnectFar connect_;
  std::string hardware_;
};

Far& TheFar() {
  static Far* const device = new Far;
  return *device;
}

}  // namespace

Device& FarDevice() { return TheFar(); }

FarCalls FarDeviceCalls() { return TheFar().calls(); }

void* NearAddress(const void* address) { return TheFar().Near(address); }

void SetConnectFar(ConnectFar connect, std::string hardware) {
  TheFar().SetConnect(std::move(connect), std::move(hardware));
}

}  // namespace cohort::runtime
