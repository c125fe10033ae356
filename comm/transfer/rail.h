// A rail: one network interface, with a UCX worker of its own.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/transfer/link.h"
#include "comm/transport/ucx/ucx_worker.h"

namespace cohort::comm::transfer {

// Frames are eager active messages, copied to memory of the rail first: so UCX never holds a pointer into a
// registered region, and any write can be given up at any time, also while its peer is stopped. The target
// checks a frame and copies it into its region in the callback. (Over TCP, ucp_put of UCX 1.13 is no faster:
// README.md has the measurement.)
class Rail {
 public:
  static absl::StatusOr<std::unique_ptr<Rail>> Create(const std::string& device, LinkEvents* events);
  ~Rail();

  absl::StatusOr<std::unique_ptr<Link>> Connect(const std::string& address);
  const std::string& address() const { return worker_->address(); }
  int event_fd() const { return worker_->event_fd(); }
  // Whether something moved. At most about `budget` bytes.
  bool Progress(size_t budget);
  // True where the event fd will say what comes next.
  bool Arm();
  // Lets frames in flight go and endpoints end, for a moment.
  void Flush(int64_t nanos);

 private:
  class Endpoint;
  // A frame in UCX's hands.
  struct Packet {
    Rail* rail = nullptr;
    std::shared_ptr<int> in_flight;  // of its endpoint
    Frame frame;
    std::unique_ptr<std::byte[]> data;
    size_t capacity = 0;
    std::list<std::unique_ptr<Packet>>::iterator place;
  };

  explicit Rail(LinkEvents* events) : events_(events) {}
  std::unique_ptr<Packet> NewPacket(size_t bytes);
  void Over(Packet& packet);
  static void OnSent(void* request, ucs_status_t status, void* user_data);
  static ucs_status_t OnFrame(void* arg, const void* header, size_t header_bytes, void* data, size_t bytes,
                              const ucp_am_recv_param_t* param);

  LinkEvents* const events_;
  std::unique_ptr<ucx::Worker> worker_;
  std::list<std::unique_ptr<Packet>> in_flight_;
  std::vector<std::unique_ptr<Packet>> free_small_, free_large_;
  std::vector<void*> closing_;  // requests of endpoints that end
  // What UCX has said of endpoints, by the number it was given; they outlive their links, as UCX may still
  // speak.
  std::vector<std::unique_ptr<std::string>> broken_;
  size_t bytes_in_ = 0;
};

}  // namespace cohort::comm::transfer
