// The memory of a recording: laid out while its work is rehearsed, so that recording and replaying allocate nothing.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace cohort::runtime {

class Device;

// The rehearsal takes ordinary memory, and its blocks' places are noted; the recording takes and gives back in the same
// order and so finds each block at the place that was noted for it, in one block made for all. A place is free again as
// soon as its block is given back, as what comes later in the queue uses it later. Thread-safe.
class RecordingMemory : public std::enable_shared_from_this<RecordingMemory> {
 public:
  // Rehearsal: `block`, which has `bytes` and is kept as long as what is returned.
  std::shared_ptr<void> Note(std::shared_ptr<void> block, size_t bytes);
  // What the rehearsal needed at once.
  size_t bytes() const;
  // The rehearsal is over; `memory` has bytes().
  void BeginRecording(std::shared_ptr<void> memory);
  // Recording: a place in `memory`, which is kept as long as what is returned. Aborts beyond its end.
  std::shared_ptr<void> Allocate(size_t bytes);
  // Nothing is taken any more, and what is given back stays where it is: replays use it.
  void End();

 private:
  size_t Take(size_t bytes);
  void Give(int phase, size_t place, size_t bytes);

  mutable std::mutex mutex_;
  std::shared_ptr<void> memory_;
  int phase_ = 0;                               // rehearsal, recording, over
  std::map<size_t, std::vector<size_t>> free_;  // places, by size
  size_t used_ = 0, room_ = 0;
};

// What every device does that records: calls `work` as always, to rehearse it, and then between `begin` and `end`, where
// the device keeps what is enqueued. `current`: the device's, null before and after. Its Allocate notes what it gives while
// current is there, and between `begin` and `end` takes from it. Returns the block in which the recording's memory lies.
std::shared_ptr<void> RehearseAndRecord(Device& device, std::shared_ptr<RecordingMemory>& current,
                                        const std::function<void()>& work, const std::function<void()>& begin,
                                        const std::function<void()>& end);

}  // namespace cohort::runtime
