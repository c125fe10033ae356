// The device communicator: checks arguments, chooses a plan, and hands it to the session of the present members.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "comm/nccl/device_communicator.h"
#include "comm/nccl/session.h"

namespace cohort::comm::nccl {

class NcclCommunicator final : public DeviceCommunicator {
 public:
  NcclCommunicator(std::shared_ptr<Communicator> base, const DeviceOptions& options, NcclApi& api);
  // Waits for what is in flight.
  ~NcclCommunicator() override;

  int rank() const override { return base_->rank(); }
  int size() const override { return base_->size(); }
  const Topology& topology() const override { return base_->topology(); }
  absl::Duration timeout() const override { return base_->timeout(); }
  void SetTimeout(absl::Duration timeout) override { base_->SetTimeout(timeout); }
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
  absl::Status BeginGroup() override;
  Work EndGroup() override;

  // What the base is asked: algorithms between hosts are its own.
  absl::Status SetCollectives(absl::string_view collectives) override {
    return base_->SetCollectives(collectives);
  }
  std::string TopologyText() override { return base_->TopologyText(); }
  std::string AlgorithmOf(Operation operation, size_t bytes) override;

  absl::StatusOr<MembershipChange> Shrink(EditOptions options) override;
  absl::StatusOr<MembershipChange> Grow(std::shared_ptr<JoinBoard> board, EditOptions options) override;
  void Abort(const absl::Status& why) override;
  uint32_t epoch() const override { return base_->epoch(); }
  const std::vector<int>& members() const override { return base_->members(); }
  std::string FlightRecord() const override { return base_->FlightRecord(); }
  absl::Status Renew() override;
  Way WayOf(Operation operation, size_t bytes) const override;
  const std::shared_ptr<Communicator>& base() const override { return base_; }

 private:
  absl::StatusOr<MembershipChange> AfterEdit(absl::StatusOr<MembershipChange> change);
  absl::Status MeasurePrices();
  // The shortest time of an all-reduce, the longest of all ranks.
  absl::StatusOr<double> TimeAllReduce(Way way, void* memory, size_t bytes);
  absl::StatusOr<std::shared_ptr<Session>> Usable() const;
  Collective Describe(Operation operation) const;
  Work Collect(Collective call, DataType dtype, ReduceOp op, const void* send, void* recv);
  Work Collect(Collective call, DataType dtype, ReduceOp op, const void* send, void* recv, Way way);
  Work Message(bool sends, const void* send, void* recv, size_t count, DataType dtype, int peer, int tag);

  const std::shared_ptr<Communicator> base_;
  const DeviceOptions options_;
  NcclApi& api_;

  mutable std::mutex mutex_;
  std::shared_ptr<Session> session_;  // null where no edit has succeeded since the last
  absl::Status unusable_;             // why it is null
  WayPrices prices_;
  std::shared_ptr<DeviceRun> group_;  // between BeginGroup and EndGroup
  Request group_request_;
};

}  // namespace cohort::comm::nccl
