// How an engine finds its peers, and which transport serves which pair.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"
#include "comm/engine.h"
#include "comm/policy.h"
#include "comm/transport/mpi/mpi_transport.h"
#include "comm/transport/self/self_transport.h"
#include "comm/transport/shm/shm_transport.h"
#include "comm/transport/ucx/ucx_transport.h"

namespace cohort::comm {
namespace {

// What a rank tells the others of itself: one line each.
struct Card {
  std::string host;
  int socket = -1, numa = -1;
  std::string shm;   // empty: does not use it
  std::string wish;  // COHORT_TRANSPORT
  std::string mpi;
};

absl::StatusOr<Card> ParseCard(int rank, const std::string& text) {
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  Card card;
  if (lines.size() != 6 || !absl::SimpleAtoi(lines[1], &card.socket) ||
      !absl::SimpleAtoi(lines[2], &card.numa)) {
    return absl::InvalidArgumentError(absl::StrCat("the rendezvous holds something unknown for rank ", rank));
  }
  card.host = lines[0];
  card.shm = lines[3];
  card.wish = lines[4];
  card.mpi = lines[5];
  return card;
}

// Ranks are where a declared topology says: hosts that it splits count as several, sockets and NUMA domains are its
// own.
absl::Status Declare(const HostMap& declared, std::vector<Location>* locations) {
  if (declared.size() != static_cast<int>(locations->size())) {
    return absl::InvalidArgumentError(absl::StrCat("the declared topology has ", declared.size(),
                                                   " ranks, but the job has ", locations->size()));
  }
  for (int rank = 0; rank < declared.size(); ++rank) {
    const int first = declared.ranks_on(declared.host_of(rank))[0];
    if ((*locations)[rank].host == (*locations)[first].host) continue;
    return absl::InvalidArgumentError(absl::StrCat("the declared topology puts ranks ", first, " and ", rank,
                                                   " on one host, but they run on ", (*locations)[first].host,
                                                   " and ", (*locations)[rank].host));
  }
  for (int rank = 0; rank < declared.size(); ++rank) {
    Location& location = (*locations)[rank];
    location = {absl::StrCat(location.host, "#", declared.host_of(rank)), declared.socket_of(rank),
                declared.numa_of(rank)};
  }
  return absl::OkStatus();
}

std::string CardKey(int rank) { return absl::StrCat("cohort/card/", rank); }
std::string AttachedKey(int rank) { return absl::StrCat("cohort/attached/", rank); }

std::string UcxKey(int rank) { return absl::StrCat("cohort/ucx/", rank); }
std::string UcxAttachedKey(int rank) { return absl::StrCat("cohort/ucx-attached/", rank); }

// COHORT_TRANSPORT forces one transport between all pairs, for tests and for finding faults.
absl::StatusOr<std::string> WishedTransport() {
  const char* wish = std::getenv("COHORT_TRANSPORT");
  if (wish == nullptr || *wish == '\0') return std::string();
  const std::string name = wish;
  if (name == "shm" || name == "ucx" || name == "mpi") return name;
  return absl::InvalidArgumentError(
      absl::StrCat("COHORT_TRANSPORT is '", name, "': it can be shm, ucx or mpi, or unset"));
}

bool Allows(const std::string& wish, absl::string_view transport) {
  return wish.empty() || wish == transport;
}

// Connects over UCX to those of `peers` that have it too, and takes them off the list. Null where UCX does not
// work here.
absl::StatusOr<std::unique_ptr<ucx::UcxTransport>> ConnectUcx(Rendezvous& rendezvous, absl::Time deadline,
                                                              TransportEvents* events,
                                                              std::vector<int>* peers, absl::Status* why) {
  const int rank = rendezvous.rank();
  auto ucx = ucx::UcxTransport::Create(rank, rendezvous.size(), events);
  *why = ucx.status();
  COHORT_RETURN_IF_ERROR(rendezvous.Put(UcxKey(rank), ucx.ok() ? (*ucx)->Address() : "none"));
  std::vector<int> reached, left;
  for (const int peer : *peers) {
    COHORT_ASSIGN_OR_RETURN(const std::string address, rendezvous.Get(UcxKey(peer), deadline));
    if (!ucx.ok() || address == "none") {
      left.push_back(peer);
      continue;
    }
    COHORT_RETURN_IF_ERROR((*ucx)->Attach(peer, address));
    reached.push_back(peer);
  }
  *peers = left;
  // Frames of strangers are dropped: nobody speaks before both have attached.
  COHORT_RETURN_IF_ERROR(rendezvous.Put(UcxAttachedKey(rank), "yes"));
  for (const int peer : reached) {
    COHORT_RETURN_IF_ERROR(rendezvous.Get(UcxAttachedKey(peer), deadline).status());
  }
  if (reached.empty()) return nullptr;
  COHORT_RETURN_IF_ERROR((*ucx)->Meet(deadline));
  return std::move(*ucx);
}

}  // namespace

std::shared_ptr<Engine> Engine::Single() {
  auto engine = std::shared_ptr<Engine>(new Engine(Topology(0, {Here()})));
  engine->transports_.push_back(std::make_unique<SelfTransport>(0, engine.get()));
  engine->routes_[0] = engine->transports_.back().get();
  return engine;
}

absl::StatusOr<std::shared_ptr<Engine>> Engine::Create(Rendezvous& rendezvous, const HostMap* declared,
                                                       absl::Time deadline) {
  const int rank = rendezvous.rank();
  const int size = rendezvous.size();
  // The transports call back into the engine, so their addresses are made before it knows its topology.
  auto shell = std::shared_ptr<Engine>(new Engine(Topology(rank, std::vector<std::string>(size, "?"))));
  COHORT_RETURN_IF_ERROR(shell->Connect(rendezvous, declared, deadline));
  return shell;
}

absl::Status Engine::Connect(Rendezvous& rendezvous, const HostMap* declared, absl::Time deadline) {
  const int rank = topology_.rank();
  const int size = topology_.size();
  transports_.push_back(std::make_unique<SelfTransport>(rank, this));
  routes_[rank] = transports_.back().get();
  COHORT_ASSIGN_OR_RETURN(wish_, WishedTransport());
  const Location here = Here();
  card_.host = here.host;
  card_.location = here;
  std::unique_ptr<shm::ShmTransport> shm;
  if (Allows(wish_, "shm")) {
    auto made = shm::ShmTransport::Create(rank, size, this);
    if (!made.ok() && size > 1) return made.status();
    if (made.ok()) shm = *std::move(made);
  }
  if (shm != nullptr) card_.shm = shm->Address();
  if (size == 1) {
    topology_ = Topology(0, {here});
    if (shm != nullptr) AddSharedMemory(std::move(shm));  // for those who may join
    return absl::OkStatus();
  }

  const Card own{here.host, here.socket, here.numa, card_.shm, wish_, mpi::MpiTransport::Address()};
  COHORT_RETURN_IF_ERROR(rendezvous.Put(
      CardKey(rank),
      absl::StrJoin(std::tuple(own.host, own.socket, own.numa, own.shm, own.wish, own.mpi), "\n")));

  std::vector<Card> cards(size);
  std::vector<Location> locations(size);
  std::string attached(size, '0');
  std::vector<absl::Status> why(size);
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) {
      cards[peer] = own;
    } else {
      COHORT_ASSIGN_OR_RETURN(const std::string text, rendezvous.Get(CardKey(peer), deadline));
      COHORT_ASSIGN_OR_RETURN(cards[peer], ParseCard(peer, text));
    }
    locations[peer] = {cards[peer].host, cards[peer].socket, cards[peer].numa};
    if (peer == rank || shm == nullptr || cards[peer].shm.empty() || cards[peer].host != own.host) continue;
    why[peer] = shm->Attach(peer, cards[peer].shm);
    if (why[peer].ok()) attached[peer] = '1';
  }
  if (declared != nullptr) COHORT_RETURN_IF_ERROR(Declare(*declared, &locations));
  topology_ = Topology(rank, locations);
  card_.location = locations[rank];

  // A pair shares memory where both could attach; and nobody goes on before all have.
  COHORT_RETURN_IF_ERROR(rendezvous.Put(AttachedKey(rank), attached));
  std::vector<int> remote, others;  // over UCX, over MPI
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    COHORT_ASSIGN_OR_RETURN(const std::string theirs, rendezvous.Get(AttachedKey(peer), deadline));
    if (attached[peer] == '1' && static_cast<int>(theirs.size()) == size && theirs[rank] == '1') {
      routes_[peer] = shm.get();
      continue;
    }
    if (shm != nullptr) shm->Detach(peer);
    (Allows(wish_, "ucx") && Allows(cards[peer].wish, "ucx") ? remote : others).push_back(peer);
  }
  if (shm != nullptr) AddSharedMemory(std::move(shm));
  absl::Status no_ucx;
  if (!remote.empty()) {
    const std::vector<int> wanted = remote;
    COHORT_ASSIGN_OR_RETURN(auto ucx, ConnectUcx(rendezvous, deadline, this, &remote, &no_ucx));
    for (const int peer : wanted) {
      if (std::find(remote.begin(), remote.end(), peer) == remote.end()) routes_[peer] = ucx.get();
    }
    others.insert(others.end(), remote.begin(), remote.end());
    if (ucx != nullptr) AddUcx(std::move(ucx));
  }
  for (const int peer : others) {
    if (!own.mpi.empty() && !cards[peer].mpi.empty() && Allows(wish_, "mpi") &&
        Allows(cards[peer].wish, "mpi")) {
      continue;
    }
    return absl::UnavailableError(
        absl::StrCat("no transport reaches rank ", peer, " on ", cards[peer].host, " from rank ", rank,
                     " on ", own.host, why[peer].ok() ? "" : absl::StrCat(" (", why[peer].ToString(), ")"),
                     no_ucx.ok() ? "" : absl::StrCat(" (", no_ucx.ToString(), ")"),
                     ": between hosts, UCX must work on both, or the job be started with mpirun and a build "
                     "that has MPI"));
  }
  if (!others.empty()) {
    std::vector<std::string> addresses;
    for (const Card& card : cards) addresses.push_back(card.mpi);
    COHORT_ASSIGN_OR_RETURN(auto mpi, mpi::MpiTransport::Create(rank, addresses, this));
    for (const int peer : others) routes_[peer] = mpi.get();
    transports_.push_back(std::move(mpi));
  }
  const bool own_core = topology_.local_size() <= static_cast<int>(std::thread::hardware_concurrency());
  spin_polls_ = own_core ? policy::kSpinPolls : policy::kSpinPollsShared;
  yield_nanos_ = own_core ? policy::kYieldNanos : policy::kYieldNanosShared;
  if (ucx_ != nullptr) Watch(ucx_);
  return absl::OkStatus();
}

void Engine::AddSharedMemory(std::unique_ptr<shm::ShmTransport> shm) {
  shm_ = shm.get();
  doorbell_ = shm->doorbell();
  transports_.push_back(std::move(shm));
}

void Engine::AddUcx(std::unique_ptr<ucx::UcxTransport> ucx) {
  ucx_ = ucx.get();
  card_.ucx = ucx->Address();
  transports_.push_back(std::move(ucx));
}

absl::Status Engine::OpenAsNewcomer() {
  COHORT_ASSIGN_OR_RETURN(wish_, WishedTransport());
  card_.location = Here();
  card_.host = card_.location.host;
  absl::Status why;
  if (Allows(wish_, "shm")) {
    auto shm = shm::ShmTransport::Create(-1, 0, this);
    why.Update(shm.status());
    if (shm.ok()) {
      card_.shm = (*shm)->Address();
      AddSharedMemory(*std::move(shm));
    }
  }
  if (Allows(wish_, "ucx")) {
    auto ucx = ucx::UcxTransport::Create(-1, 0, this);
    why.Update(ucx.status());
    if (ucx.ok()) {
      AddUcx(*std::move(ucx));
      Watch(ucx_);
    }
  }
  if (shm_ != nullptr || ucx_ != nullptr) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("groups are joined over shared memory or UCX, and neither is to be had: ",
                   why.ok() ? "COHORT_TRANSPORT forbids them" : why.ToString()));
}

void Engine::OpenNetwork() {
  if (ucx_ != nullptr || card_.host.empty() || !Allows(wish_, "ucx")) return;
  auto ucx = ucx::UcxTransport::Create(topology_.rank(), topology_.size(), this);
  if (!ucx.ok()) return;
  const std::lock_guard lock(mutex_);
  AddUcx(*std::move(ucx));
  Watch(ucx_);
}

}  // namespace cohort::comm
