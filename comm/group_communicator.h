// The communicator: checks arguments, chooses algorithms, and hands their schedules to the engine.
#pragma once

#include <atomic>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "comm/datatype/staging.h"
#include "comm/engine.h"
#include "comm/operation.h"
#include "comm/tuner/agreement.h"
#include "comm/tuner/tuner.h"

namespace cohort::comm {

class GroupCommunicator : public Communicator {
 public:
  GroupCommunicator(std::shared_ptr<Engine> engine, std::shared_ptr<Group> group, CommunicatorOptions options,
                    std::shared_ptr<const TuningInputs> tuning);
  // Waits for what is in flight.
  ~GroupCommunicator() override;

  int rank() const override { return group_->rank; }
  int size() const override { return static_cast<int>(group_->members.size()); }
  const Topology& topology() const override { return topology_; }
  absl::Duration timeout() const override { return absl::Nanoseconds(timeout_.load()); }
  void SetTimeout(absl::Duration timeout) override { timeout_ = absl::ToInt64Nanoseconds(timeout); }
  // How algorithms are chosen: for groups made of this one's ranks.
  const std::shared_ptr<const TuningInputs>& tuning() const { return tuning_; }

  absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key) override;
  Work AllReduce(const void* send, void* recv, size_t count, DataType dtype, ReduceOp op) override;
  Work ReduceScatter(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
                     ReduceOp op) override;
  Work AllGather(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype) override;
  Work Broadcast(void* buffer, size_t count, DataType dtype, int root) override;
  Work Reduce(const void* send, void* recv, size_t count, DataType dtype, int root, ReduceOp op) override;
  Work Gather(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
              int root) override;
  Work Scatter(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
               int root) override;
  Work AllToAll(const void* send, void* recv, size_t count, DataType dtype) override;
  Work AllToAllV(const void* send, absl::Span<const size_t> send_counts, void* recv,
                 absl::Span<const size_t> recv_counts, DataType dtype) override;
  Work AllToAllMatrix(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype) override;
  Work Send(const void* buffer, size_t count, DataType dtype, int peer, int tag) override;
  Work Recv(void* buffer, size_t count, DataType dtype, int peer, int tag) override;
  Work Send(const void* buffer, size_t count, const Datatype& type, int peer, int tag) override;
  Work Recv(void* buffer, size_t count, const Datatype& type, int peer, int tag) override;
  Work Barrier() override;
  Work MoveTokens(const TokenCall& call) override;
  Work Quantized(const QuantizedCall& call) override;

  absl::StatusOr<MembershipChange> Shrink(EditOptions options) override;
  absl::StatusOr<MembershipChange> Grow(std::shared_ptr<JoinBoard> board, EditOptions options) override;
  void Abort(const absl::Status& why) override;
  std::string FlightRecord() const override { return engine_->FlightRecordText(); }
  uint32_t epoch() const override { return group_->epoch; }
  const std::vector<int>& members() const override { return group_->members; }
  // The first call of a process that was taken in.
  absl::Status MeetAsNewcomer();

  absl::Status SetCollectives(absl::string_view collectives) override;
  std::string TopologyText() override;
  std::string AlgorithmOf(Operation operation, size_t bytes) override;
  // One message of bytes as collectives have them, to which nobody answers: for what measures them (tuner/measure.h).
  Work SendPlain(const void* buffer, size_t bytes, int peer);
  Work RecvPlain(void* buffer, size_t bytes, int peer);
  // The world's first call: where nobody has said what links cost, all ranks get the same measured prices.
  absl::Status MeasurePrices(Rendezvous& rendezvous, absl::Time deadline);

 private:
  absl::StatusOr<MembershipChange> Edit(const EditOptions& wanted);
  // What an edit from the members `before` to those `after` (world ranks) means to this rank.
  MembershipChange Changed(const std::vector<int>& before, const std::vector<int>& after, uint32_t epoch,
                           const std::vector<int>& left) const;
  // Forgets what depends on the members.
  void Refresh();
  // A collective as it is called, before anything is copied. What does not count is empty.
  struct Call {
    Operation operation = Operation::kBarrier;
    DataType dtype = DataType::kU8;
    ReduceOp op = ReduceOp::kSum;
    int root = 0;
    size_t count = 0;
    absl::Span<const size_t> counts = {}, recv_counts = {}, matrix = {};
    bool in_place = false;
    const QuantizedCall* quantized = nullptr;
  };
  Work Collect(const Call& call, const void* send, void* recv);
  // An all-to-all-v before which ranks tell each other their counts.
  Work CollectAfterCounts(const Call& call, const void* send, void* recv);
  Work Start(Run::Arguments arguments);
  // point_to_point.cc
  // One message; with a layout, of `count` bytes that lie over the buffer as it says. Where confirmed, the send is over
  // when the receiver has agreed with its size.
  Work PointToPoint(bool sends, const void* send, void* recv, size_t count, DataType dtype, int peer, int tag,
                    bool confirmed, std::shared_ptr<const Datatype> layout = nullptr);
  // Decides how a layout is moved. Where the bytes to send are, packed or not.
  const void* Lay(bool sends, const void* send, std::shared_ptr<const Datatype> layout, int peer,
                  Run::Arguments* arguments);
  // `count` of a datatype.
  Work LaidOut(bool sends, const void* send, void* recv, size_t count, const Datatype& type, int peer,
               int tag);
  static absl::Status CheckBuffer(const char* what, const void* buffer, size_t count);
  absl::Status CheckCounts(const char* what, absl::Span<const size_t> counts, size_t element_bytes) const;
  absl::Status CheckRoot(int root) const;
  // This rank's part of a buffer of all ranks' parts.
  const void* PartOf(const void* whole, absl::Span<const size_t> counts, DataType dtype) const;
  // codec/quantized_collectives.cc
  absl::Status AddCodec(const QuantizedCall& call, Run::Arguments* arguments) const;

  const std::shared_ptr<Engine> engine_;
  const std::shared_ptr<Group> group_;
  const CommunicatorOptions options_;
  std::atomic<int64_t> timeout_;  // nanoseconds
  Topology topology_;             // of the present epoch

  // What calls of one kind have in common: one that comes again costs little. call_kinds.cc.
  struct Kind {
    Collective collective;
    Run::Arguments arguments;     // but for what differs from call to call
    std::shared_ptr<Run> latest;  // for the next call, where nobody else has it any more
    size_t scratch_bytes = 0;     // that it holds

    bool Fits(const Call& call) const;
  };
  Kind& KindOfLocked(const Call& call);
  Kind MakeKindLocked(const Call& call);
  // Of schedules whose runs hold much memory, only the latest keep theirs.
  void LimitScratchLocked();
  void SetTuning(std::shared_ptr<const TuningInputs> tuning);
  void MakeTunerLocked();

  std::mutex mutex_;
  std::shared_ptr<const TuningInputs> tuning_;
  std::unique_ptr<Tuner> tuner_;                  // of the present members
  std::list<Kind> kinds_;                         // the latest first
  std::map<std::pair<int, int>, uint32_t> sent_;  // by (peer, tag): messages so far
  std::map<std::pair<int, int>, uint32_t> received_;
  StagingPool staging_;
};

}  // namespace cohort::comm
