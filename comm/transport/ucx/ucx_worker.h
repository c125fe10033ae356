// One UCP context and worker, configured for this room.
#pragma once

#include <ucp/api/ucp.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace cohort::comm::ucx {

// UCX is started when the first of these is made, so a process may fork before. (It has threads of its own
// then.) What the environment says of UCX (UCX_*) goes before what is chosen here.
class Worker {
 public:
  // Over this network interface ("eth0", "mlx5_0:1"); where none is named, those of COHORT_NET_DEVICES or
  // UCX's choice.
  static absl::StatusOr<std::unique_ptr<Worker>> Create(const std::string& device = "");
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  ucp_worker_h handle() const { return worker_; }
  absl::Status Handle(unsigned number, ucp_am_recv_callback_t callback, void* arg);
  int event_fd() const { return event_fd_; }
  // Binary; what a peer's UCX needs to reach this worker.
  const std::string& address() const { return address_; }

 private:
  Worker() = default;

  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  int event_fd_ = -1;
  std::string address_;
};

}  // namespace cohort::comm::ucx
