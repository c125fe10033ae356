// Runs one schedule over the transports of an engine.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "comm/codec/codec.h"
#include "comm/membership/agreement.h"
#include "comm/membership/wire.h"
#include "comm/operation.h"
#include "comm/reduce.h"
#include "comm/schedule.h"
#include "comm/transport/message.h"
#include "comm/work.h"

namespace cohort::comm {

class Engine;

// A group of ranks as the engine knows it. What changes is under the engine's lock; members, rank and context change
// only in an edit, when nothing is in flight.
struct Group {
  uint32_t context = 0;      // of the epoch: each has its own
  std::vector<int> members;  // world ranks
  int rank = 0;              // this rank is members[rank]
  uint32_t next_sequence = 0;

  std::shared_ptr<const Group> parent;  // of which it was split; null: of none

  uint32_t epoch = 0;
  bool world = false;    // members that it loses are forgotten altogether
  absl::Status failure;  // of the first operation of this epoch that ended in an error
  // The latest operations that ended in an error: peers that call them later hear why.
  std::deque<std::pair<uint32_t, absl::Status>> failures;
  // The latest operation that is over here and failed elsewhere.
  std::pair<uint32_t, absl::Status> failed_elsewhere;
  absl::Status revoked;  // where not OK: operations end with it until the group is edited
  absl::Status removed;  // where not OK: this rank is not a member any more
  std::unique_ptr<Agreement> agreement;
  std::vector<std::pair<int, MembershipMessage>> inbox;  // for the agreement that has not begun
};

// Memory that schedules work in: not cleared, kept from one call to the next.
class ScratchMemory {
 public:
  // At least so many bytes, aligned for vectors.
  void Reserve(size_t bytes);
  std::byte* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t bytes_ = 0;
};

// What ranks must tell each other before they know what to do: numbers that are exchanged by a schedule of their own,
// on elements of 64 bits, in the same operation.
struct Prelude {
  std::vector<uint64_t> input, output;
  // What follows, made of the output; under the engine's lock. An error ends the operation on all ranks.
  std::function<absl::StatusOr<std::shared_ptr<const Schedule>>(absl::Span<const uint64_t> output)> then;
};

// One operation in flight. Its schedule starts a step as soon as the steps it depends on are over. A run that is over
// can be made ready for another call of the same kind: Renew.
class Run : public WorkState, public RequestOwner, public std::enable_shared_from_this<Run> {
 public:
  struct Arguments {
    std::shared_ptr<Group> group;
    std::shared_ptr<const Schedule> schedule;  // of the prelude, where there is one
    std::shared_ptr<Prelude> prelude;
    Signature signature;
    MessageKey key;  // the steps of a collective; the step of a send/recv is the tag of its only step
    const char* algorithm = nullptr;  // its name, for the record
    bool confirmed = false;
    // A message whose bytes lie over input or output as this says; `in_place` as its request has it. Where they
    // were packed instead, `staging` is what keeps them.
    std::shared_ptr<const Datatype> layout;
    bool in_place = false;
    std::shared_ptr<std::byte[]> staging;
    const std::byte* input = nullptr;
    std::byte* output = nullptr;
    ReduceFunction reduce = nullptr;
    // Where the schedule has a wire buffer. What is encoded at wire element i has its residual at residual[i].
    const Codec* codec = nullptr;
    Encoding encoding;
    float* residual = nullptr;
    int64_t began = 0;            // NowTicks
    int64_t timeout = INT64_MAX;  // nanoseconds from then on
  };

  Run(std::shared_ptr<Engine> engine, Arguments arguments);
  // Another call of the same arguments, but for these. The run is over, and nobody but the caller knows it.
  void Renew(const std::byte* input, std::byte* output, int64_t began, int64_t timeout);
  // Bytes of memory that it holds on to.
  size_t ScratchBytes() const;

  // WorkState: from any thread, without the engine's lock.
  bool Done() override;
  absl::Status Wait(absl::Time deadline) override;

  // Lock-free.
  bool done() const { return done_.load(std::memory_order_seq_cst); }
  const std::atomic<bool>* done_flag() const { return &done_; }

  // The rest: under the engine's lock.
  const Arguments& arguments() const { return arguments_; }
  void set_key(const MessageKey& key) { arguments_.key = key; }
  // In NowNanos.
  bool Late(int64_t now) const;
  bool point_to_point() const { return (arguments_.key.context & kPointToPointContext) != 0; }
  void Begin();
  void OnRequestDone(uint32_t token, const absl::Status& status) override;
  // Ends the operation with an error: takes back what is posted, and tells the group where `tell` is set.
  void Fail(const absl::Status& status, bool tell);
  // Whether a message from or to the world rank is awaited.
  bool WaitsFor(int peer) const;
  // What the flight recorder knows it by.
  void set_record(uint64_t number) { record_ = number; }
  uint64_t record() const { return record_; }
  // Once it is over.
  const absl::Status& status() const { return status_; }
  // World ranks that messages are awaited from or by, ascending.
  std::vector<int> AwaitedPeers() const;

 private:
  enum class Phase : uint8_t { kBlocked, kPosted, kOver };
  struct StepState {
    uint32_t blocked_by = 0;
    Phase phase = Phase::kBlocked;
    std::variant<std::monostate, SendRequest, RecvRequest> request;
  };

  std::byte* At(const Slice& slice) const;
  const std::byte* From(const Slice& slice) const;
  // Of a buffer whose elements are not encoded.
  DataType TypeOf(Buffer buffer) const;
  size_t BytesOf(const Slice& slice) const;
  bool WritesPastCaches(const Step& step) const;
  void Copy(const Step& step);
  void Reduce(const Step& step);
  void Prepare();
  void Drain();
  void FollowPrelude();
  void StartStep(StepId step);
  void PostSend(StepId step);
  void PostRecv(StepId step);
  void StepOver(StepId step);
  void Finish(const absl::Status& status);

  const std::shared_ptr<Engine> engine_;
  Arguments arguments_;
  // Of the prelude, then of what follows it.
  std::shared_ptr<const Schedule> schedule_;
  const std::byte* input_;
  std::byte* output_;
  size_t element_bytes_;
  uint32_t first_tag_;
  ScratchMemory scratch_, wire_, sums_;
  std::vector<StepState> steps_;
  std::vector<StepState> prelude_steps_;  // whose requests transports may still look at
  std::vector<StepId> ready_;
  size_t next_ready_ = 0;
  size_t left_ = 0;
  bool draining_ = false;
  uint64_t record_ = 0;
  absl::Status status_;
  std::atomic<bool> done_{false};
};

}  // namespace cohort::comm
