// A communicator for what lies in the memory of a device, by way of the host.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "runtime/device/device.h"

namespace cohort::runtime {

// The same group as `host`, but buffers are addresses of the device. An operation waits for what is enqueued on the
// device, copies its inputs into memory of the host, and is the host communicator's there: the same calls in the same
// order, so the same bits and the same errors. Wait copies the outputs back, before what is enqueued from then on.
// Nothing waits for a peer before Wait does.
//
// Where the device has a communicator of its own for this group (connected_device.h), that makes what it is good
// at: all-reduce, reduce-scatter, all-gather, broadcast and the all-to-alls. Messages match by tag and wait for no
// one in the device's queue, and codecs encode on the host: both go by way of the host.
//
// Token routing is UNIMPLEMENTED: it tells others numbers that are on the host, and is made over `host`.
class StagedCommunicator final : public comm::Communicator {
 public:
  // `direct`: null where the device has none. The device outlives this.
  StagedCommunicator(Device& device, std::shared_ptr<comm::Communicator> host,
                     std::unique_ptr<comm::Communicator> direct = nullptr);
  // The same later, on all ranks between the same two operations. Nothing is in flight.
  void SetDirect(std::unique_ptr<comm::Communicator> direct) { direct_ = std::move(direct); }

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  const comm::Topology& topology() const override { return host_->topology(); }
  absl::Duration timeout() const override { return host_->timeout(); }
  void SetTimeout(absl::Duration timeout) override { host_->SetTimeout(timeout); }
  // By way of the host.
  absl::StatusOr<std::unique_ptr<comm::Communicator>> Split(int color, int key) override;

  comm::Work AllReduce(const void* send, void* recv, size_t count, DataType dtype,
                       comm::ReduceOp op) override;
  comm::Work ReduceScatter(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
                           comm::ReduceOp op) override;
  comm::Work AllGather(const void* send, void* recv, absl::Span<const size_t> counts,
                       DataType dtype) override;
  comm::Work Broadcast(void* buffer, size_t count, DataType dtype, int root) override;
  comm::Work Reduce(const void* send, void* recv, size_t count, DataType dtype, int root,
                    comm::ReduceOp op) override;
  comm::Work Gather(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
                    int root) override;
  comm::Work Scatter(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
                     int root) override;
  comm::Work AllToAll(const void* send, void* recv, size_t count, DataType dtype) override;
  comm::Work AllToAllV(const void* send, absl::Span<const size_t> send_counts, void* recv,
                       absl::Span<const size_t> recv_counts, DataType dtype) override;
  comm::Work AllToAllMatrix(const void* send, void* recv, absl::Span<const size_t> counts,
                            DataType dtype) override;
  comm::Work Send(const void* buffer, size_t count, DataType dtype, int peer, int tag) override;
  comm::Work Recv(void* buffer, size_t count, DataType dtype, int peer, int tag) override;
  // Run by run: each is a copy of its own.
  comm::Work Send(const void* buffer, size_t count, const comm::Datatype& type, int peer, int tag) override;
  comm::Work Recv(void* buffer, size_t count, const comm::Datatype& type, int peer, int tag) override;
  comm::Work Barrier() override { return host_->Barrier(); }
  comm::Work MoveTokens(const comm::TokenCall& call) override;
  comm::Work Quantized(const comm::QuantizedCall& call) override;

  absl::Status SetCollectives(absl::string_view collectives) override {
    return host_->SetCollectives(collectives);
  }
  std::string TopologyText() override { return host_->TopologyText(); }
  std::string AlgorithmOf(comm::Operation operation, size_t bytes) override {
    return host_->AlgorithmOf(operation, bytes);
  }
  absl::StatusOr<comm::MembershipChange> Shrink(comm::EditOptions options) override;
  absl::StatusOr<comm::MembershipChange> Grow(std::shared_ptr<comm::JoinBoard> board,
                                              comm::EditOptions options) override;
  void Abort(const absl::Status& why) override;
  uint32_t epoch() const override { return host_->epoch(); }
  const std::vector<int>& members() const override { return host_->members(); }
  std::string FlightRecord() const override { return host_->FlightRecord(); }

 private:
  bool Whole(absl::Span<const size_t> counts, DataType dtype) const;

  Device& device_;
  const std::shared_ptr<comm::Communicator> host_;
  std::unique_ptr<comm::Communicator> direct_;
};

}  // namespace cohort::runtime
