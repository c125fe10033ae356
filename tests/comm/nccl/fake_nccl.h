// NCCL and CUDA without either, for tests: device memory is the host's, streams are threads, and NCCL's communicators are
// second communicators of the ranks over host memory, which behave as NCCL does: nothing blocks, kernels whose peers are
// gone wait until they are aborted, and what may not be called then ends the process.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "comm/nccl/nccl_api.h"

namespace cohort::comm::nccl {

class FakeNccl final : public NcclApi {
 public:
  // From now on.
  struct Faults {
    absl::Duration late_by = {};      // every kernel begins so late
    absl::Duration pending_for = {};  // a group that has ended is pending so long
    bool hangs = false;               // kernels never end by themselves,
    bool fails = false;               // nor without an asynchronous error
    bool refuses_init = false;        // Init fails
    bool init_hangs = false;          // Init stays pending
    bool refuses_calls = false;       // Enqueue fails
    bool abort_hangs = false;         // Abort takes half a minute, and ends nothing
    bool finalize_hangs = false;      // Finalize stays pending
  };

  // Where the host finds what a call or copy names as an address of a device.
  using NearOf = std::function<void*(const void*)>;

  // `folder`: all ranks see it. `near`: where device memory is not the host's after all.
  explicit FakeNccl(std::string folder, NearOf near = nullptr)
      : folder_(std::move(folder)), near_(std::move(near)) {}

  void Set(const Faults& faults) {
    const std::lock_guard lock(mutex_);
    faults_ = faults;
  }
  // Memory, events, streams and handles that were made and not given back.
  int left() const { return left_; }
  int aborted() const { return aborted_; }
  // Groups of calls so far, and calls between any two.
  int groups() const { return groups_; }
  int calls() const { return calls_; }

  absl::Status UseDevice(int device) override;
  absl::StatusOr<void*> Allocate(size_t bytes, Stream stream) override;
  absl::Status Free(void* memory, Stream stream) override;
  absl::StatusOr<void*> AllocatePinned(size_t bytes) override;
  void FreePinned(void* memory) override;
  absl::StatusOr<Stream> CreateStream() override;
  void DestroyStream(Stream stream) override;
  absl::StatusOr<Event> CreateEvent() override;
  void DestroyEvent(Event event) override;
  absl::Status Record(Event event, Stream stream) override;
  absl::StatusOr<bool> Query(Event event) override;
  absl::Status StreamWaitsForEvent(Stream stream, Event event) override;
  absl::Status StreamWaitsForFlag(Stream stream, uint32_t* flag, uint32_t value) override;
  absl::Status Copy(void* to, const void* from, size_t bytes, Stream stream) override;

  absl::StatusOr<UniqueId> GetUniqueId() override;
  Outcome Init(Handle* handle, int size, const UniqueId& id, int rank) override;
  Outcome AsyncError(Handle handle) override;
  absl::Status GroupStart() override;
  Outcome GroupEnd() override;
  absl::Status Enqueue(const Call& call, Handle handle, Stream stream) override;
  Outcome Finalize(Handle handle) override;
  absl::Status Destroy(Handle handle) override;
  absl::Status Abort(Handle handle) override;

 private:
  struct Queue;
  struct Mark;
  struct Group;

  Faults faults() const {
    const std::lock_guard lock(mutex_);
    return faults_;
  }
  std::shared_ptr<Group> Find(Handle handle) const;
  static void Kernel(const std::shared_ptr<Group>& group, const std::vector<Call>& calls,
                     const Faults& faults);
  static Work Begin(Communicator& host, const Call& call);

  void* Near(const void* address) const { return near_ ? near_(address) : const_cast<void*>(address); }

  const std::string folder_;
  const NearOf near_;
  mutable std::mutex mutex_;
  Faults faults_;
  std::map<Handle, std::shared_ptr<Group>> handles_;
  int ids_ = 0;
  std::atomic<int> left_{0}, aborted_{0}, groups_{0}, calls_{0};
};

}  // namespace cohort::comm::nccl
