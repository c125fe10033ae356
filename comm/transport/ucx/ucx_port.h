// A UCX worker and what is in its hands: frames on their way, and endpoints.
#pragma once

#include <algorithm>
#include <cstring>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "comm/check.h"
#include "comm/transport/ucx/policy.h"
#include "comm/transport/ucx/ucx_worker.h"

namespace cohort::comm::ucx {

// Frames are eager active messages whose header, a Frame, and data lie in memory of the port: so UCX never holds a
// pointer into memory of a caller's, and any operation can be given up at any time, also while its peer is stopped.
// Used under its owner's lock. Nothing of it may be called from its events but Post, NewPacket and Keep.
template <typename Frame>
class Port {
 public:
  struct Endpoint {
    void* owner = nullptr;  // whatever it is for
    std::string broken;     // why it no longer works; empty while it does
    int in_flight = 0;      // frames
    ucp_ep_h handle = nullptr;
    Port* port = nullptr;
  };
  struct Packet {
    Frame frame;
    std::unique_ptr<std::byte[]> data;
    size_t bytes = 0;
    size_t capacity = 0;
    Endpoint* endpoint = nullptr;
    typename std::list<std::unique_ptr<Packet>>::iterator place;
  };
  class Events {
   public:
    virtual ~Events() = default;
    // The data are valid during the call.
    virtual void OnArrival(const Frame& frame, absl::Span<const std::byte> data) = 0;
    // UCX has let go of it, also where it failed. To be kept for a next one where it is not needed.
    virtual void OnOver(std::unique_ptr<Packet> packet) { Recycle(std::move(packet)); }
    // `endpoint.broken` says how.
    virtual void OnBroken(Endpoint& endpoint) {}

   protected:
    static void Recycle(std::unique_ptr<Packet> packet) {
      Port* port = packet->endpoint->port;
      port->Keep(std::move(packet));
    }
  };

  static absl::StatusOr<std::unique_ptr<Port>> Create(const std::string& device, Events* events) {
    auto port = std::unique_ptr<Port>(new Port(events));
    COHORT_ASSIGN_OR_RETURN(port->worker_, Worker::Create(device));
    COHORT_RETURN_IF_ERROR(port->worker_->Handle(kActiveMessage, OnArrival, port.get()));
    return port;
  }
  ~Port() { worker_.reset(); }  // what UCX still holds of packets lives as long

  const std::string& address() const { return worker_->address(); }
  int event_fd() const { return worker_->event_fd(); }
  // Nothing is on its way, and no endpoint is ending.
  bool idle() const { return in_flight_.empty() && closing_.empty(); }

  // An endpoint stays until the port goes: UCX may still speak of it after its end.
  absl::StatusOr<Endpoint*> Connect(const std::string& address, void* owner) {
    auto endpoint = std::make_unique<Endpoint>();
    endpoint->owner = owner;
    endpoint->port = this;
    ucp_ep_params_t params = {};
    params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                        UCP_EP_PARAM_FIELD_ERR_HANDLER;
    params.address = reinterpret_cast<const ucp_address_t*>(address.data());
    params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
    params.err_handler.cb = OnError;
    params.err_handler.arg = endpoint.get();
    const ucs_status_t status = ucp_ep_create(worker_->handle(), &params, &endpoint->handle);
    if (status != UCS_OK)
      return absl::UnavailableError(absl::StrCat("UCX has no way there: ", ucs_status_string(status)));
    return endpoints_.emplace_back(std::move(endpoint)).get();
  }
  // Not from an event. What is in flight fails.
  void End(Endpoint& endpoint, const std::string& why) {
    if (endpoint.broken.empty()) endpoint.broken = why;
    if (endpoint.handle == nullptr) return;
    ucp_request_param_t param = {};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_EP_CLOSE_FLAG_FORCE;
    const ucs_status_ptr_t closing = ucp_ep_close_nbx(std::exchange(endpoint.handle, nullptr), &param);
    if (UCS_PTR_IS_PTR(closing)) closing_.push_back(closing);
  }

  std::unique_ptr<Packet> NewPacket(size_t bytes) {
    auto& kept = bytes <= kSmallBytes ? free_small_ : free_large_;
    std::unique_ptr<Packet> packet;
    if (!kept.empty()) {
      packet = std::move(kept.back());
      kept.pop_back();
    } else {
      packet = std::make_unique<Packet>();
      packet->capacity = bytes <= kSmallBytes ? kSmallBytes : policy::kUcxPieceBytes;
      packet->data = std::make_unique_for_overwrite<std::byte[]>(packet->capacity);
    }
    packet->frame = {};
    packet->bytes = bytes;
    return packet;
  }
  void Keep(std::unique_ptr<Packet> packet) {
    auto& kept = packet->capacity == kSmallBytes ? free_small_ : free_large_;
    if (kept.size() < kKept) kept.push_back(std::move(packet));
  }

  // Over at once where the endpoint does not work.
  void Post(Endpoint& endpoint, std::unique_ptr<Packet> owned) {
    Packet& packet = *owned;
    packet.endpoint = &endpoint;
    packet.place = in_flight_.insert(in_flight_.end(), std::move(owned));
    ++endpoint.in_flight;
    if (endpoint.handle == nullptr) {
      Over(packet);
      return;
    }
    ucp_request_param_t param = {};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_AM_SEND_FLAG_EAGER;
    param.cb.send = OnSent;
    param.user_data = &packet;
    const ucs_status_ptr_t sent = ucp_am_send_nbx(endpoint.handle, kActiveMessage, &packet.frame,
                                                  sizeof(Frame), packet.data.get(), packet.bytes, &param);
    if (UCS_PTR_IS_PTR(sent)) return;
    if (UCS_PTR_IS_ERR(sent)) OnError(&endpoint, endpoint.handle, UCS_PTR_STATUS(sent));
    Over(packet);
  }

  // Whether something moved. At most about `budget` bytes.
  bool Progress(size_t budget) {
    bytes_in_ = 0;
    bool moved = false;
    while (bytes_in_ < budget && ucp_worker_progress(worker_->handle()) != 0) moved = true;
    if (!closing_.empty()) {
      std::erase_if(closing_, [](void* request) {
        if (ucp_request_check_status(request) == UCS_INPROGRESS) return false;
        ucp_request_free(request);
        return true;
      });
    }
    return moved;
  }
  // True where the event fd will say what comes next.
  bool Arm() { return ucp_worker_arm(worker_->handle()) == UCS_OK; }

 private:
  static constexpr unsigned kActiveMessage = 1;
  // Buffers up to this size are kept apart from those of pieces, and so many of each.
  static constexpr size_t kSmallBytes = 4 << 10;
  static constexpr size_t kKept = 32;

  explicit Port(Events* events) : events_(events) {}

  void Over(Packet& packet) {
    --packet.endpoint->in_flight;
    std::unique_ptr<Packet> done = std::move(*packet.place);
    in_flight_.erase(packet.place);
    events_->OnOver(std::move(done));
  }
  static void OnSent(void* request, ucs_status_t, void* user_data) {
    // A failure is the endpoint's, which has been told.
    Packet& packet = *static_cast<Packet*>(user_data);
    packet.endpoint->port->Over(packet);
    ucp_request_free(request);
  }
  static void OnError(void* arg, ucp_ep_h, ucs_status_t status) {
    auto& endpoint = *static_cast<Endpoint*>(arg);
    if (!endpoint.broken.empty()) return;
    endpoint.broken = ucs_status_string(status);
    endpoint.port->events_->OnBroken(endpoint);
  }
  static ucs_status_t OnArrival(void* arg, const void* header, size_t header_bytes, void* data, size_t bytes,
                                const ucp_am_recv_param_t* param) {
    auto& port = *static_cast<Port*>(arg);
    Frame frame;
    if (header_bytes != sizeof(frame) || (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0) return UCS_OK;
    std::memcpy(&frame, header, sizeof(frame));
    port.bytes_in_ += bytes;
    port.events_->OnArrival(frame, {static_cast<const std::byte*>(data), bytes});
    return UCS_OK;
  }

  Events* const events_;
  std::unique_ptr<Worker> worker_;
  std::vector<std::unique_ptr<Endpoint>> endpoints_;
  std::list<std::unique_ptr<Packet>> in_flight_;
  std::vector<std::unique_ptr<Packet>> free_small_, free_large_;
  std::vector<void*> closing_;  // requests of endpoints that end
  size_t bytes_in_ = 0;
};

}  // namespace cohort::comm::ucx
