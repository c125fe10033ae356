#include "comm/transport/ucx/ucx_transport.h"

#include <poll.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"
#include "comm/doorbell.h"
#include "comm/transport/peer_silence.h"

namespace cohort::comm::ucx {
namespace {

uint64_t RandomNumber() {
  std::random_device source;
  return static_cast<uint64_t>(source()) << 32 | source();
}

}  // namespace

UcxTransport::UcxTransport(int rank, int size, TransportEvents* events, std::unique_ptr<Worker> worker)
    : rank_(rank),
      incarnation_(RandomNumber()),
      silence_(PeerSilenceNanos()),
      events_(events),
      worker_(std::move(worker)),
      peers_(size),
      board_(policy::kBoardEntries) {}

absl::StatusOr<std::unique_ptr<UcxTransport>> UcxTransport::Create(int rank, int size,
                                                                   TransportEvents* events) {
  COHORT_ASSIGN_OR_RETURN(std::unique_ptr<Worker> worker, Worker::Create());
  auto made = std::unique_ptr<UcxTransport>(new UcxTransport(rank, size, events, std::move(worker)));
  COHORT_RETURN_IF_ERROR(made->worker_->Handle(kActiveMessage, OnFrame, made.get()));
  return made;
}

UcxTransport::~UcxTransport() {
  // Ends what UCX still holds of packets, which live as long.
  worker_.reset();
}

std::string UcxTransport::Address() const {
  return absl::StrCat(incarnation_, " ", absl::Base64Escape(worker_->address()));
}

absl::Status UcxTransport::Attach(int rank, const std::string& address) {
  const std::vector<std::string> fields = absl::StrSplit(address, ' ');
  auto peer = std::make_unique<Peer>();
  peer->owner = this;
  peer->rank = rank;
  peer->board.resize(policy::kBoardEntries);
  std::string worker_address;
  if (fields.size() != 2 || !absl::SimpleAtoi(fields[0], &peer->incarnation) ||
      !absl::Base64Unescape(fields[1], &worker_address) || worker_address.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank, " gave the UCX address '", address, "'"));
  }
  if (rank >= static_cast<int>(peers_.size())) peers_.resize(rank + 1);
  Detach(rank);
  peer->address = std::move(worker_address);
  peers_[rank] = std::move(peer);
  if (rank_ < rank) Connect(*peers_[rank]);
  return absl::OkStatus();
}

// The lower rank connects, and says hello again until it is answered, as the first may come before the peer has
// attached. The other connects when it hears that, over the same connection: UCX 1.13 aborts (an assertion in
// tcp_iface.c) or waits for ever where on a busy machine two ranks connect to each other at once.
void UcxTransport::Connect(Peer& peer) {
  ucp_ep_params_t params = {};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(peer.address.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = OnEndpointError;
  params.err_handler.arg = &peer;
  const ucs_status_t status = ucp_ep_create(worker_->handle(), &params, &peer.endpoint);
  if (status != UCS_OK) {
    peer.endpoint = nullptr;
    OnEndpointError(&peer, nullptr, status);
    return;
  }
  Greet(peer, NowNanos());
  if (!peer.heard) return;
  for (auto& packet : std::exchange(peer.held, {})) Post(peer, std::move(packet));
}

void UcxTransport::Detach(int rank) {
  if (rank >= static_cast<int>(peers_.size()) || peers_[rank] == nullptr) return;
  Peer& peer = *peers_[rank];
  if (!peer.gone) {
    peer.gone = true;
    peer.how = absl::StrCat("rank ", rank, " is no longer attached");
    EndEndpoint(peer);
    FailRequests(peer);
  }
  peer.board = {};
  former_.push_back(std::move(peers_[rank]));
}

absl::Status UcxTransport::Meet(absl::Time deadline) {
  const auto strangers = [&] {
    std::vector<int> ranks;
    for (const auto& peer : peers_) {
      if (peer != nullptr && !peer->gone && !peer->heard) ranks.push_back(peer->rank);
    }
    return ranks;
  };
  while (!strangers().empty()) {
    for (const auto& peer : peers_) {
      if (peer != nullptr && !peer->gone && !peer->heard) Greet(*peer, NowNanos());
    }
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          "no connection over UCX with rank ", absl::StrJoin(strangers(), ", "),
          ": is the network between the hosts open, and do COHORT_NET_DEVICES and UCX_NET_DEVICES name the "
          "interfaces that reach it?"));
    }
    if (!Progress(policy::kProgressBytes) && Arm()) WaitForEvent(policy::kMaxSleepNanos);
  }
  return absl::OkStatus();
}

bool UcxTransport::Progress(size_t budget) {
  bytes_in_ = 0;
  bool moved = false;
  while (bytes_in_ < budget && ucp_worker_progress(worker_->handle()) != 0) moved = true;
  if (std::exchange(greeted_, false)) {
    for (size_t rank = 0; rank < peers_.size(); ++rank) {
      if (peers_[rank] != nullptr && std::exchange(peers_[rank]->greeted, false)) Connect(*peers_[rank]);
    }
  }
  if (!outbound_.empty()) moved |= PushBodies();
  if (trouble_) moved |= BuryPeers();
  return moved;
}

bool UcxTransport::Arm() { return ucp_worker_arm(worker_->handle()) == UCS_OK; }

void UcxTransport::WaitForEvent(int64_t nanos) {
  pollfd event = {worker_->event_fd(), POLLIN, 0};
  const timespec limit = {nanos / 1'000'000'000, nanos % 1'000'000'000};
  ppoll(&event, 1, &limit, nullptr);
}

void UcxTransport::Close() {
  for (const auto& peer : peers_) {
    if (peer != nullptr) PostControl(*peer, FrameType::kLeave, {});
  }
  const auto until = [&](int64_t nanos, const auto& done) {
    for (const int64_t give_up = NowNanos() + nanos; !done() && NowNanos() < give_up;) {
      if (ucp_worker_progress(worker_->handle()) == 0 && Arm()) WaitForEvent(policy::kBacklogSleepNanos);
    }
  };
  closed_ = true;
  // A connection that ends with something unread takes back what the other side has not read either.
  until(policy::kUcxLingerNanos, [&] {
    return in_flight_.empty() && std::all_of(peers_.begin(), peers_.end(), [](const auto& peer) {
             return peer == nullptr || peer->gone || !peer->heard || peer->said_bye || !peer->broken.empty();
           });
  });
  for (const auto& peer : peers_) {
    if (peer != nullptr) EndEndpoint(*peer);
  }
  until(policy::kUcxEndNanos, [&] {
    std::erase_if(closing_, [](void* request) {
      if (ucp_request_check_status(request) == UCS_INPROGRESS) return false;
      ucp_request_free(request);
      return true;
    });
    return closing_.empty();
  });
}

}  // namespace cohort::comm::ucx
