// Bytes of a device that nobody changes come to the host beside what the device computes: snapshots, state that moves.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "runtime/device/device.h"

namespace cohort::runtime {

// Read is for any thread, Mark for one. The device outlives it.
class HostReader {
 public:
  virtual ~HostReader() = default;

  // What is read from now on comes after all that is enqueued now. What is enqueued later must leave it as it is: it may
  // run before or after.
  virtual void Mark() = 0;
  // Calls `take` with so many bytes of that address of the device, no more than it was made for: they lie in memory of the
  // host until take returns.
  virtual void Read(const void* from, size_t bytes, const std::function<void(const void*)>& take) = 0;
};

// What a device is besides that has such a way of its own (dynamic_cast).
class ReadBesideDevice {
 public:
  virtual ~ReadBesideDevice() = default;
  virtual absl::StatusOr<std::unique_ptr<HostReader>> MakeHostReader(size_t most_bytes) = 0;
};

// For reads of up to so many bytes. Where memory is the host's, take gets it as it lies there; where a device has no way
// of its own, bytes come through its queue.
absl::StatusOr<std::unique_ptr<HostReader>> MakeHostReader(Device& device, size_t most_bytes);

}  // namespace cohort::runtime
