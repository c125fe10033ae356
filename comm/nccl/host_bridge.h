// Pieces between hosts: from the device to pinned memory, through an operation of the lanes, and back, several at a time.
// The stream waits meanwhile for a flag in pinned memory that is raised when all pieces are back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "comm/communicator.h"
#include "comm/nccl/nccl_api.h"
#include "comm/nccl/plan.h"

namespace cohort::comm::nccl {

// Device buffers of one call.
struct Buffers {
  const std::byte* send = nullptr;
  std::byte* recv = nullptr;
  std::byte* scratch = nullptr;
  DataType dtype = DataType::kU8;
  ReduceOp op = ReduceOp::kSum;

  const std::byte* from(Place place) const;
  std::byte* to(Place place) const;
};

// One call's pieces.
struct Crossing {
  std::vector<Piece> pieces;
  Buffers buffers;
  Event ready = nullptr;  // recorded in the stream after what the pieces need
  uint32_t number = 0;    // raises the flag to it
  size_t begun = 0;       // pieces whose copy out is enqueued,
  size_t sent = 0;        // whose operation between hosts has started,
  size_t back = 0;        // whose copy in is enqueued,
  size_t over = 0;        // and which are over: always in their order, so that all lanes have one order
};

// Used by one thread, but for the flag. All ranks of the hosts have one; `lanes` is null on those that are no lane.
class HostBridge {
 public:
  static absl::StatusOr<std::unique_ptr<HostBridge>> Create(NcclApi& api, std::unique_ptr<Communicator> lanes,
                                                            size_t piece_bytes);
  // Waits for what is with the network; copies must be over.
  ~HostBridge();

  // Makes `stream` wait until the crossing of this number is over.
  absl::Status MakeWait(Stream stream, uint32_t number) {
    return api_.StreamWaitsForFlag(stream, flag_, number);
  }
  // Moves on what can be, without waiting; true when all is back and the flag is raised. Crossings are run one after the
  // other.
  absl::StatusOr<bool> Advance(Crossing& crossing);
  // Lets all streams go that wait, now and later: what they find is no result. From any thread.
  void Release();
  // After Release: ends what lanes do together, on all ranks, and waits for copies. False where some go on.
  bool End(const absl::Status& why, absl::Time deadline);

  size_t piece_bytes() const { return piece_bytes_; }

 private:
  struct Slot {
    std::byte* input = nullptr;
    std::byte* output = nullptr;
    Event copied = nullptr;
    Work exchange;
    bool used = false;
  };

  HostBridge(NcclApi& api, std::unique_ptr<Communicator> lanes, size_t piece_bytes)
      : api_(api), lanes_(std::move(lanes)), piece_bytes_(piece_bytes) {}
  absl::Status Open();
  Slot& SlotOf(size_t piece) { return slots_[piece % slots_.size()]; }
  absl::Status CopyOut(Crossing& crossing, size_t piece);
  absl::Status CopyIn(Crossing& crossing, size_t piece);
  Work Exchange(const Crossing& crossing, const HostCall& call, Slot& slot);

  NcclApi& api_;
  std::unique_ptr<Communicator> lanes_;
  const size_t piece_bytes_;
  Stream out_ = nullptr, in_ = nullptr;
  uint32_t* flag_ = nullptr;
  std::vector<Slot> slots_;
};

}  // namespace cohort::comm::nccl
