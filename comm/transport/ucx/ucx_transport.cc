#include "comm/transport/ucx/ucx_transport.h"

#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

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
#include "comm/policy.h"
#include "comm/transport/peer_silence.h"
#include "comm/transport/ucx/policy.h"

namespace cohort::comm::ucx {
namespace {

uint64_t RandomNumber() {
  std::random_device source;
  return static_cast<uint64_t>(source()) << 32 | source();
}

}  // namespace

UcxTransport::UcxTransport(int rank, int size, TransportEvents* events)
    : rank_(rank),
      incarnation_(RandomNumber()),
      silence_(PeerSilenceNanos()),
      events_(events),
      peers_(size),
      board_(policy::kBoardEntries) {}

absl::StatusOr<std::unique_ptr<UcxTransport>> UcxTransport::Create(int rank, int size,
                                                                   TransportEvents* events) {
  auto made = std::unique_ptr<UcxTransport>(new UcxTransport(rank, size, events));
  made->interfaces_ = Interfaces();
  for (const Interface& interface : made->interfaces_) {
    COHORT_ASSIGN_OR_RETURN(auto port, Port<Frame>::Create(interface.name, made.get()));
    made->ports_.push_back(std::move(port));
  }
  made->event_fd_ = made->ports_[0]->event_fd();
  if (made->ports_.size() == 1) return made;
  made->event_fd_ = epoll_create1(EPOLL_CLOEXEC);
  if (made->event_fd_ < 0) return absl::ErrnoToStatus(errno, "epoll");
  made->owns_event_fd_ = true;
  for (const auto& port : made->ports_) {
    epoll_event event = {EPOLLIN, {}};
    if (epoll_ctl(made->event_fd_, EPOLL_CTL_ADD, port->event_fd(), &event) != 0)
      return absl::ErrnoToStatus(errno, "epoll");
  }
  return made;
}

UcxTransport::~UcxTransport() {
  // UCX gives back what it still holds.
  for (const auto& peer : peers_) {
    if (peer != nullptr) peer->gone = true;
  }
  ports_.clear();
  if (owns_event_fd_) close(event_fd_);
}

std::string UcxTransport::Address() const {
  std::string text = absl::StrCat(incarnation_);
  for (size_t i = 0; i < ports_.size(); ++i) {
    absl::StrAppend(&text, " ", absl::Base64Escape(ports_[i]->address()), ":",
                    absl::Base64Escape(interfaces_[i].ToText()));
  }
  return text;
}

absl::Status UcxTransport::Attach(int rank, const std::string& address) {
  const std::vector<std::string> fields = absl::StrSplit(address, ' ');
  auto peer = std::make_unique<Peer>();
  peer->rank = rank;
  peer->board.resize(policy::kBoardEntries);
  bool good = fields.size() >= 2 && absl::SimpleAtoi(fields[0], &peer->incarnation);
  std::vector<std::string> addresses(fields.size() - 1);
  std::vector<Interface> theirs;
  for (size_t i = 1; good && i < fields.size(); ++i) {
    const std::vector<std::string> parts = absl::StrSplit(fields[i], ':');
    std::string interface;
    good = parts.size() == 2 && absl::Base64Unescape(parts[0], &addresses[i - 1]) &&
           !addresses[i - 1].empty() && absl::Base64Unescape(parts[1], &interface);
    const absl::StatusOr<Interface> read = Interface::FromText(interface);
    good = good && read.ok();
    if (good) theirs.push_back(*read);
  }
  if (!good)
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank, " gave the UCX address '", address, "'"));
  if (rank >= static_cast<int>(peers_.size())) peers_.resize(rank + 1);
  Detach(rank);
  for (const auto& [own, other] : PairInterfaces(interfaces_, theirs)) {
    const auto endpoint = ports_[own]->Connect(addresses[other], peer.get());
    if (!endpoint.ok())
      return absl::UnavailableError(absl::StrCat("rank ", rank, ": ", endpoint.status().message()));
    peer->rails.emplace_back().endpoint = *endpoint;
  }
  peers_[rank] = std::move(peer);
  return absl::OkStatus();
}

void UcxTransport::Detach(int rank) {
  if (rank >= static_cast<int>(peers_.size()) || peers_[rank] == nullptr) return;
  Peer& peer = *peers_[rank];
  if (!peer.gone) {
    peer.gone = true;
    peer.how = absl::StrCat("rank ", rank, " is no longer attached");
    EndEndpoints(peer, peer.how);
    FailRequests(peer);
  }
  DropBodies(peer);
  peer.held.clear();
  peer.board = {};
  former_.push_back(std::move(peers_[rank]));
}

absl::Status UcxTransport::Meet(absl::Time deadline) {
  // All have attached, so each hello arrives, and none needs an answer.
  for (const auto& peer : peers_) {
    for (size_t rail = 0; peer != nullptr && rail < peer->rails.size(); ++rail)
      SayHello(*peer, rail, /*asks=*/false);
  }
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
  bool moved = false;
  for (const auto& port : ports_) moved |= port->Progress(budget);
  if (!sending_.empty()) moved |= PushBodies();
  if (trouble_) moved |= BuryPeers();
  return moved;
}

bool UcxTransport::Arm() {
  return std::all_of(ports_.begin(), ports_.end(), [](const auto& port) { return port->Arm(); });
}

void UcxTransport::WaitForEvent(int64_t nanos) {
  pollfd event = {event_fd_, POLLIN, 0};
  const timespec limit = {nanos / 1'000'000'000, nanos % 1'000'000'000};
  ppoll(&event, 1, &limit, nullptr);
}

void UcxTransport::Close() {
  for (const auto& peer : peers_) {
    if (peer != nullptr) PostControl(*peer, FrameType::kLeave, {});
  }
  const auto until = [&](int64_t nanos, const auto& done) {
    for (const int64_t give_up = NowNanos() + nanos; !done() && NowNanos() < give_up;) {
      bool moved = false;
      for (const auto& port : ports_) moved |= port->Progress(policy::kProgressBytes);
      if (!moved && Arm()) WaitForEvent(policy::kBacklogSleepNanos);
    }
  };
  const auto idle = [&] {
    return std::all_of(ports_.begin(), ports_.end(), [](const auto& port) { return port->idle(); });
  };
  const auto unreachable = [](const Peer& peer) {
    return std::all_of(peer.rails.begin(), peer.rails.end(),
                       [](const Rail& rail) { return !rail.endpoint->broken.empty(); });
  };
  closed_ = true;
  for (const auto& peer : peers_) {
    for (size_t rail = 0; peer != nullptr && rail < peer->rails.size(); ++rail) peer->rails[rail].silent = 0;
  }
  // A connection that ends with something unread takes back what the other side has not read either. Peers that say
  // nothing for as long as counts as loss are cut off.
  until(policy::kUcxLingerNanos, [&] {
    if (NowNanos() - last_look_ > policy::kCheckNanos) LookForSilence();
    return idle() && std::all_of(peers_.begin(), peers_.end(), [&](const auto& peer) {
             return peer == nullptr || peer->gone || !peer->heard || peer->said_bye || unreachable(*peer);
           });
  });
  for (const auto& peer : peers_) {
    if (peer != nullptr) EndEndpoints(*peer, "this rank has left");
  }
  until(policy::kUcxEndNanos, idle);
}

}  // namespace cohort::comm::ucx
