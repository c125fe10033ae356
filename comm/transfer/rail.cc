#include "comm/transfer/rail.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "comm/doorbell.h"
#include "comm/policy.h"

namespace cohort::comm::transfer {
namespace {

constexpr unsigned kActiveMessage = 2;
// Buffers up to this size are kept apart from those of pieces, and so many of each.
constexpr size_t kSmallPacketBytes = 4 << 10;
constexpr size_t kPacketsKept = 32;

void OnEndpointError(void* arg, ucp_ep_h, ucs_status_t status) {
  auto& broken = *static_cast<std::string*>(arg);
  if (broken.empty()) broken = ucs_status_string(status);
}

}  // namespace

class Rail::Endpoint final : public Link {
 public:
  Endpoint(Rail* rail, ucp_ep_h endpoint, std::string* broken)
      : rail_(rail), endpoint_(endpoint), broken_(broken), in_flight_(std::make_shared<int>(0)) {}
  ~Endpoint() override { End("the link has ended"); }

  bool TrySend(const Frame& frame, absl::Span<const Piece> payload) override {
    if (!broken_->empty()) return false;
    if (*in_flight_ >= policy::kTransferFramesInFlight) return false;
    size_t bytes = 0;
    for (const Piece& piece : payload) bytes += piece.bytes;
    std::unique_ptr<Packet> owned = rail_->NewPacket(bytes);
    Packet& packet = *owned;
    packet.frame = frame;
    std::byte* to = packet.data.get();
    for (const Piece& piece : payload) {
      if (piece.bytes > 0) std::memcpy(to, piece.data, piece.bytes);
      to += piece.bytes;
    }
    packet.in_flight = in_flight_;
    ++*in_flight_;
    packet.place = rail_->in_flight_.insert(rail_->in_flight_.end(), std::move(owned));
    ucp_request_param_t param = {};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_AM_SEND_FLAG_EAGER;
    param.cb.send = OnSent;
    param.user_data = &packet;
    const ucs_status_ptr_t sent = ucp_am_send_nbx(endpoint_, kActiveMessage, &packet.frame, sizeof(Frame),
                                                  packet.data.get(), bytes, &param);
    if (UCS_PTR_IS_PTR(sent)) return true;
    if (UCS_PTR_IS_ERR(sent)) OnEndpointError(broken_, endpoint_, UCS_PTR_STATUS(sent));
    rail_->Over(packet);
    return true;
  }

  const std::string& broken() const override { return *broken_; }

  void End(std::string why) override {
    if (broken_->empty()) *broken_ = std::move(why);
    if (endpoint_ == nullptr) return;
    ucp_request_param_t param = {};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_EP_CLOSE_FLAG_FORCE;
    const ucs_status_ptr_t closing = ucp_ep_close_nbx(std::exchange(endpoint_, nullptr), &param);
    if (UCS_PTR_IS_PTR(closing)) rail_->closing_.push_back(closing);
  }

  size_t MaxPayload() const override { return policy::kUcxPieceBytes; }

 private:
  Rail* rail_;
  ucp_ep_h endpoint_;
  std::string* broken_;
  std::shared_ptr<int> in_flight_;
};

absl::StatusOr<std::unique_ptr<Rail>> Rail::Create(const std::string& device, LinkEvents* events) {
  auto rail = std::unique_ptr<Rail>(new Rail(events));
  COHORT_ASSIGN_OR_RETURN(rail->worker_, ucx::Worker::Create(device));
  COHORT_RETURN_IF_ERROR(rail->worker_->Handle(kActiveMessage, OnFrame, rail.get()));
  return rail;
}

Rail::~Rail() {
  // Ends what UCX still holds of packets, which live as long.
  worker_.reset();
}

absl::StatusOr<std::unique_ptr<Link>> Rail::Connect(const std::string& address) {
  broken_.push_back(std::make_unique<std::string>());
  ucp_ep_params_t params = {};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(address.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = OnEndpointError;
  params.err_handler.arg = broken_.back().get();
  ucp_ep_h endpoint = nullptr;
  const ucs_status_t status = ucp_ep_create(worker_->handle(), &params, &endpoint);
  if (status != UCS_OK)
    return absl::UnavailableError(absl::StrCat("UCX has no way there: ", ucs_status_string(status)));
  return std::make_unique<Endpoint>(this, endpoint, broken_.back().get());
}

std::unique_ptr<Rail::Packet> Rail::NewPacket(size_t bytes) {
  auto& kept = bytes <= kSmallPacketBytes ? free_small_ : free_large_;
  if (!kept.empty()) {
    std::unique_ptr<Packet> packet = std::move(kept.back());
    kept.pop_back();
    return packet;
  }
  auto packet = std::make_unique<Packet>();
  packet->rail = this;
  packet->capacity = bytes <= kSmallPacketBytes ? kSmallPacketBytes : policy::kUcxPieceBytes;
  packet->data = std::make_unique_for_overwrite<std::byte[]>(packet->capacity);
  return packet;
}

void Rail::Over(Packet& packet) {
  --*packet.in_flight;
  packet.in_flight.reset();
  std::unique_ptr<Packet> done = std::move(*packet.place);
  in_flight_.erase(packet.place);
  auto& kept = done->capacity == kSmallPacketBytes ? free_small_ : free_large_;
  if (kept.size() < kPacketsKept) kept.push_back(std::move(done));
}

void Rail::OnSent(void* request, ucs_status_t, void* user_data) {
  // A failure is the endpoint's, which has been told.
  Packet& packet = *static_cast<Packet*>(user_data);
  packet.rail->Over(packet);
  ucp_request_free(request);
}

ucs_status_t Rail::OnFrame(void* arg, const void* header, size_t header_bytes, void* data, size_t bytes,
                           const ucp_am_recv_param_t* param) {
  auto& rail = *static_cast<Rail*>(arg);
  Frame frame;
  if (header_bytes != sizeof(frame) || (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0) return UCS_OK;
  std::memcpy(&frame, header, sizeof(frame));
  rail.bytes_in_ += bytes;
  rail.events_->OnFrame(frame, {static_cast<const std::byte*>(data), bytes});
  return UCS_OK;
}

bool Rail::Progress(size_t budget) {
  bytes_in_ = 0;
  bool moved = false;
  while (bytes_in_ < budget && ucp_worker_progress(worker_->handle()) != 0) moved = true;
  std::erase_if(closing_, [](void* request) {
    if (ucp_request_check_status(request) == UCS_INPROGRESS) return false;
    ucp_request_free(request);
    return true;
  });
  return moved;
}

bool Rail::Arm() { return ucp_worker_arm(worker_->handle()) == UCS_OK; }

void Rail::Flush(int64_t nanos) {
  for (const int64_t give_up = NowNanos() + nanos; NowNanos() < give_up;) {
    if (in_flight_.empty() && closing_.empty()) return;
    if (!Progress(policy::kProgressBytes)) {
      const timespec pause = {0, policy::kBacklogSleepNanos};
      nanosleep(&pause, nullptr);
    }
  }
}

}  // namespace cohort::comm::transfer
