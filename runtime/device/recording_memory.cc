#include "runtime/device/recording_memory.h"

#include <algorithm>
#include <utility>

#include "comm/check.h"
#include "runtime/device/device.h"

namespace cohort::runtime {
namespace {

constexpr size_t kAlignment = 256;  // as CUDA's

size_t Rounded(size_t bytes) {
  return (std::max<size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

std::shared_ptr<void> RecordingMemory::Note(std::shared_ptr<void> block, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const size_t place = Take(Rounded(bytes));
  void* const address = block.get();
  return std::shared_ptr<void>(address, [self = shared_from_this(), phase = phase_, block = std::move(block),
                                         place, bytes](void*) mutable {
    self->Give(phase, place, Rounded(bytes));
    block.reset();
  });
}

size_t RecordingMemory::bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return used_;
}

void RecordingMemory::BeginRecording(std::shared_ptr<void> memory) {
  const std::lock_guard<std::mutex> lock(mutex_);
  memory_ = std::move(memory);
  room_ = std::exchange(used_, 0);
  free_.clear();
  ++phase_;
}

std::shared_ptr<void> RecordingMemory::Allocate(size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const size_t place = Take(Rounded(bytes));
  COHORT_CHECK(used_ <= room_, "a recording takes more memory than its rehearsal, which took %zu bytes",
               room_);
  return std::shared_ptr<void>(static_cast<char*>(memory_.get()) + place,
                               [self = shared_from_this(), memory = memory_, phase = phase_, place,
                                bytes](void*) { self->Give(phase, place, Rounded(bytes)); });
}

void RecordingMemory::End() {
  const std::lock_guard<std::mutex> lock(mutex_);
  memory_.reset();
  ++phase_;
}

size_t RecordingMemory::Take(size_t bytes) {
  std::vector<size_t>& free = free_[bytes];
  if (free.empty()) return std::exchange(used_, used_ + bytes);
  const size_t place = free.back();
  free.pop_back();
  return place;
}

// What a phase left behind is given back in a later one, or never.
void RecordingMemory::Give(int phase, size_t place, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (phase == phase_) free_[bytes].push_back(place);
}

std::shared_ptr<void> RehearseAndRecord(Device& device, std::shared_ptr<RecordingMemory>& current,
                                        const std::function<void()>& work, const std::function<void()>& begin,
                                        const std::function<void()>& end) {
  COHORT_CHECK(current == nullptr, "%s records already", device.name().c_str());
  const auto memory = std::make_shared<RecordingMemory>();
  current = memory;
  work();
  current = nullptr;
  const std::shared_ptr<void> block = device.Allocate(memory->bytes());
  memory->BeginRecording(block);
  current = memory;
  begin();
  work();
  end();
  current = nullptr;
  memory->End();
  return block;
}

}  // namespace cohort::runtime
