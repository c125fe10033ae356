#include "comm/transfer/rail.h"

#include <cstring>
#include <ctime>
#include <utility>

#include "comm/check.h"
#include "comm/doorbell.h"
#include "comm/policy.h"
#include "comm/transfer/policy.h"
#include "comm/transport/ucx/policy.h"

namespace cohort::comm::transfer {

class Rail::Endpoint final : public Link {
 public:
  Endpoint(ucx::Port<Frame>* port, ucx::Port<Frame>::Endpoint* endpoint) : port_(port), endpoint_(endpoint) {}
  ~Endpoint() override { End("the link has ended"); }

  bool TrySend(const Frame& frame, absl::Span<const Piece> payload) override {
    if (!endpoint_->broken.empty() || endpoint_->in_flight >= policy::kTransferFramesInFlight) return false;
    size_t bytes = 0;
    for (const Piece& piece : payload) bytes += piece.bytes;
    auto packet = port_->NewPacket(bytes);
    packet->frame = frame;
    std::byte* to = packet->data.get();
    for (const Piece& piece : payload) {
      if (piece.bytes > 0) std::memcpy(to, piece.data, piece.bytes);
      to += piece.bytes;
    }
    port_->Post(*endpoint_, std::move(packet));
    return true;
  }
  const std::string& broken() const override { return endpoint_->broken; }
  void End(std::string why) override { port_->End(*endpoint_, why); }
  size_t MaxPayload() const override { return policy::kUcxPieceBytes; }

 private:
  ucx::Port<Frame>* port_;
  ucx::Port<Frame>::Endpoint* endpoint_;
};

absl::StatusOr<std::unique_ptr<Rail>> Rail::Create(const std::string& device, LinkEvents* events) {
  auto rail = std::unique_ptr<Rail>(new Rail(events));
  COHORT_ASSIGN_OR_RETURN(rail->port_, ucx::Port<Frame>::Create(device, rail.get()));
  return rail;
}

absl::StatusOr<std::unique_ptr<Link>> Rail::Connect(const std::string& address) {
  COHORT_ASSIGN_OR_RETURN(auto* const endpoint, port_->Connect(address, nullptr));
  return std::make_unique<Endpoint>(port_.get(), endpoint);
}

void Rail::Flush(int64_t nanos) {
  for (const int64_t give_up = NowNanos() + nanos; !port_->idle() && NowNanos() < give_up;) {
    if (!Progress(policy::kProgressBytes)) {
      const timespec pause = {0, policy::kBacklogSleepNanos};
      nanosleep(&pause, nullptr);
    }
  }
}

}  // namespace cohort::comm::transfer
