// Work of a device that was enqueued once and can be enqueued again at the price of one call. Device::Record makes it.
#pragma once

namespace cohort::runtime {

// Keeps the memory of its own work, and nothing else: whoever replays it still has the tensors that the work was given.
// To be destroyed before its device.
class Recording {
 public:
  virtual ~Recording() = default;
  // Enqueues all of it. Allocates nothing and waits for nothing.
  virtual void Replay() = 0;
};

}  // namespace cohort::runtime
