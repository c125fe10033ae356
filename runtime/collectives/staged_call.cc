#include "runtime/collectives/staged_call.h"

#include <utility>

#include "runtime/tensor.h"

namespace cohort::runtime {
namespace {

// Bytes of a device, which somebody else keeps.
Tensor BytesAt(Device& device, const void* address, size_t bytes) {
  return Tensor::Wrap(device, nullptr, const_cast<void*>(address), {static_cast<int64_t>(bytes)},
                      DataType::kU8);
}

}  // namespace

StagedCall::~StagedCall() { host_.Wait().IgnoreError(); }

void* StagedCall::Room(size_t bytes) { return memory_.emplace_back(CpuDevice().Allocate(bytes)).get(); }

void StagedCall::Fetch(const void* from, void* to, size_t bytes) {
  if (bytes > 0) device_.CopyToHost(BytesAt(device_, from, bytes), to);
}

void StagedCall::BringBack(const void* from, void* to, size_t bytes) {
  if (bytes > 0) back_.push_back({from, to, bytes});
}

void* StagedCall::In(const void* from, size_t bytes) {
  if (from == nullptr) return nullptr;
  void* const room = Room(bytes);
  Fetch(from, room, bytes);
  return room;
}

void* StagedCall::Out(void* to, size_t bytes) {
  if (to == nullptr) return nullptr;
  void* const room = Room(bytes);
  BringBack(room, to, bytes);
  return room;
}

void* StagedCall::InOut(void* both, size_t bytes) {
  void* const room = Out(both, bytes);
  if (room != nullptr) Fetch(both, room, bytes);
  return room;
}

comm::Work StagedCall::Start(std::shared_ptr<StagedCall> call, comm::Work host) {
  call->host_ = std::move(host);
  return comm::Work(std::shared_ptr<comm::WorkState>(std::move(call)));
}

absl::Status StagedCall::Wait(absl::Time deadline) {
  absl::Status status = host_.Wait(deadline);
  if (!status.ok()) return status;
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Copy& copy : back_) device_.CopyFromHost(copy.from, BytesAt(device_, copy.to, copy.bytes));
  back_.clear();
  memory_.clear();
  return status;
}

}  // namespace cohort::runtime
