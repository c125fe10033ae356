// One operation on a device's memory by way of the host: its copies there and back.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "comm/work.h"
#include "runtime/device/device.h"

namespace cohort::runtime {

// Takes copies of inputs and room for outputs, then becomes the state of the operation's Work. Addresses that are null
// stay null, so that the host's communicator finds what is wrong with a call.
class StagedCall final : public comm::WorkState {
 public:
  explicit StagedCall(Device& device) : device_(device) {}
  // An operation in flight still uses the copies: waits for it.
  ~StagedCall() override;

  // ---- While the call is made ----

  // Memory of the host.
  void* Room(size_t bytes);
  // What lies there now, on the host.
  void* In(const void* from, size_t bytes);
  // Room on the host for what Wait brings there.
  void* Out(void* to, size_t bytes);
  // The same, with what lies there now.
  void* InOut(void* both, size_t bytes);
  // Bytes of the device into memory that In or Out gave.
  void Fetch(const void* from, void* to, size_t bytes);
  // What Wait brings from such memory to the device.
  void BringBack(const void* from, void* to, size_t bytes);

  // ---- The operation ----

  static comm::Work Start(std::shared_ptr<StagedCall> call, comm::Work host);
  bool Done() override { return host_.Done(); }
  absl::Status Wait(absl::Time deadline) override;

 private:
  struct Copy {
    const void* from;
    void* to;
    size_t bytes;
  };

  Device& device_;
  std::vector<std::shared_ptr<void>> memory_;
  comm::Work host_;
  std::mutex mutex_;
  std::vector<Copy> back_;  // empty once they are made
};

}  // namespace cohort::runtime
