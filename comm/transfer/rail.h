// A rail: one network interface, with a UCX worker of its own.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "comm/transfer/link.h"
#include "comm/transport/ucx/ucx_port.h"

namespace cohort::comm::transfer {

// The target checks a frame and copies it into its region as it arrives. (Over TCP, ucp_put of UCX 1.13 is no
// faster: README.md has the measurement.)
class Rail : ucx::Port<Frame>::Events {
 public:
  static absl::StatusOr<std::unique_ptr<Rail>> Create(const std::string& device, LinkEvents* events);

  absl::StatusOr<std::unique_ptr<Link>> Connect(const std::string& address);
  const std::string& address() const { return port_->address(); }
  int event_fd() const { return port_->event_fd(); }
  bool Progress(size_t budget) { return port_->Progress(budget); }
  bool Arm() { return port_->Arm(); }
  // Lets frames in flight go and endpoints end, for a moment.
  void Flush(int64_t nanos);

 private:
  class Endpoint;

  explicit Rail(LinkEvents* events) : events_(events) {}
  void OnArrival(const Frame& frame, absl::Span<const std::byte> data) override {
    events_->OnFrame(frame, data);
  }

  LinkEvents* const events_;
  std::unique_ptr<ucx::Port<Frame>> port_;
};

}  // namespace cohort::comm::transfer
