// Runs one schedule over the transports of an engine.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
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

// One operation in flight. Its schedule starts a step as soon as the steps it depends on are over.
class Run : public WorkState, public RequestOwner, public std::enable_shared_from_this<Run> {
 public:
  struct Arguments {
    std::shared_ptr<Group> group;
    std::shared_ptr<const Schedule> schedule;
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
    int64_t began = 0;
    int64_t deadline = 0;
  };

  Run(std::shared_ptr<Engine> engine, Arguments arguments);

  // WorkState: from any thread, without the engine's lock.
  bool Done() override;
  absl::Status Wait(absl::Time deadline) override;

  // Lock-free.
  bool done() const { return done_.load(std::memory_order_seq_cst); }
  const std::atomic<bool>* done_flag() const { return &done_; }

  // The rest: under the engine's lock.
  const Arguments& arguments() const { return arguments_; }
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
  void Copy(const Step& step);
  void Reduce(const Step& step);
  void Drain();
  void StartStep(StepId step);
  void PostSend(StepId step);
  void PostRecv(StepId step);
  void StepOver(StepId step);
  void Finish(const absl::Status& status);

  const std::shared_ptr<Engine> engine_;
  const Arguments arguments_;
  const size_t element_bytes_;
  std::vector<std::byte> scratch_;
  std::vector<std::byte> wire_;
  std::vector<float> sums_;
  std::vector<StepState> steps_;
  std::vector<StepId> ready_;
  size_t next_ready_ = 0;
  size_t left_ = 0;
  bool draining_ = false;
  uint64_t record_ = 0;
  absl::Status status_;
  std::atomic<bool> done_{false};
};

}  // namespace cohort::comm
