// The calls of CUDA and NCCL that device communicators are made of: one small table. The real one (nccl_real.cc, with
// nccl_functions.cc) is all that includes headers of CUDA or NCCL; tests have one over host memory, which is late, hangs and fails on
// demand.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "comm/data_type.h"

namespace cohort::comm::nccl {

using Stream = void*;  // cudaStream_t
using Event = void*;   // cudaEvent_t
using Handle = void*;  // ncclComm_t
using UniqueId = std::array<char, 128>;

// What a call of NCCL's on a communicator that does not block has come to: kPending (ncclInProgress) goes on in the
// background, and nothing else may be called with that communicator until AsyncError says kDone.
enum class Progress : uint8_t { kDone, kPending };
using Outcome = absl::StatusOr<Progress>;

enum class CallKind : uint8_t { kAllReduce, kReduceScatter, kAllGather, kBroadcast, kReduce, kSend, kRecv };

// One call of NCCL's on device memory. `count` as NCCL counts it: of a reduce-scatter and an all-gather, of one rank.
struct Call {
  CallKind kind;
  const void* from;
  void* to;
  size_t count;
  DataType dtype;
  ReduceOp op;
  int peer;  // root of a broadcast or reduce, peer of a send or receive
};

// Errors are UNAVAILABLE with the words of NCCL, or what a CUDA call says. Thread-safe but for calls with one handle.
class NcclApi {
 public:
  virtual ~NcclApi() = default;

  // ---- The device ----

  // For this thread: every entry from outside begins with it.
  virtual absl::Status UseDevice(int device) = 0;
  // Device memory, taken and given back in the order of the stream.
  virtual absl::StatusOr<void*> Allocate(size_t bytes, Stream stream) = 0;
  virtual absl::Status Free(void* memory, Stream stream) = 0;
  // Memory of the host that copies can go to and from in the background.
  virtual absl::StatusOr<void*> AllocatePinned(size_t bytes) = 0;
  virtual void FreePinned(void* memory) = 0;
  virtual absl::StatusOr<Stream> CreateStream() = 0;
  virtual void DestroyStream(Stream stream) = 0;
  virtual absl::StatusOr<Event> CreateEvent() = 0;
  virtual void DestroyEvent(Event event) = 0;
  virtual absl::Status Record(Event event, Stream stream) = 0;
  // Whether all before its place in its stream is over. Never waits.
  virtual absl::StatusOr<bool> Query(Event event) = 0;
  virtual absl::Status StreamWaitsForEvent(Stream stream, Event event) = 0;
  // What comes after waits in the stream until *flag (pinned) - value >= 0, as signed numbers.
  virtual absl::Status StreamWaitsForFlag(Stream stream, uint32_t* flag, uint32_t value) = 0;
  // Between any two of device and pinned memory.
  virtual absl::Status Copy(void* to, const void* from, size_t bytes, Stream stream) = 0;

  // ---- NCCL ----

  virtual absl::StatusOr<UniqueId> GetUniqueId() = 0;
  // Begins to make a communicator that does not block. *handle is set also where it is pending.
  virtual Outcome Init(Handle* handle, int size, const UniqueId& id, int rank) = 0;
  // Of what goes on in the background, and of a transport of NCCL's that has failed.
  virtual Outcome AsyncError(Handle handle) = 0;
  virtual absl::Status GroupStart() = 0;
  virtual Outcome GroupEnd() = 0;
  virtual absl::Status Enqueue(const Call& call, Handle handle, Stream stream) = 0;
  virtual Outcome Finalize(Handle handle) = 0;
  // After Finalize is done. The handle is gone.
  virtual absl::Status Destroy(Handle handle) = 0;
  // Ends what is in flight, also in other threads, and frees the handle. May block, against NCCL's promise.
  virtual absl::Status Abort(Handle handle) = 0;
};

// The real one. UNIMPLEMENTED in a build without NCCL, UNAVAILABLE where libnccl is not found.
absl::StatusOr<NcclApi*> OpenNccl();

}  // namespace cohort::comm::nccl
