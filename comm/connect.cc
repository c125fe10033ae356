// How an engine finds its peers, and which transport serves which pair.
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"
#include "comm/engine.h"
#include "comm/policy.h"
#include "comm/transport/mpi/mpi_transport.h"
#include "comm/transport/self/self_transport.h"
#include "comm/transport/shm/shm_transport.h"

namespace cohort::comm {
namespace {

// What a rank tells the others of itself: one line each.
struct Card {
  std::string host;
  std::string shm;  // empty: does not use it
  std::string mpi;
};

absl::StatusOr<Card> ParseCard(int rank, const std::string& text) {
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  if (lines.size() != 3) {
    return absl::InvalidArgumentError(absl::StrCat("the rendezvous holds something unknown for rank ", rank));
  }
  return Card{lines[0], lines[1], lines[2]};
}

std::string CardKey(int rank) { return absl::StrCat("cohort/card/", rank); }
std::string AttachedKey(int rank) { return absl::StrCat("cohort/attached/", rank); }

// COHORT_TRANSPORT=mpi leaves shared memory out, for tests and for systems where it does not work.
bool SharedMemoryWanted() {
  const char* wish = std::getenv("COHORT_TRANSPORT");
  return wish == nullptr || absl::string_view(wish) != "mpi";
}

}  // namespace

std::shared_ptr<Engine> Engine::Single() {
  auto engine = std::shared_ptr<Engine>(new Engine(Topology(0, {HostIdentity()})));
  engine->transports_.push_back(std::make_unique<SelfTransport>(0, engine.get()));
  engine->routes_[0] = engine->transports_.back().get();
  return engine;
}

absl::StatusOr<std::shared_ptr<Engine>> Engine::Create(Rendezvous& rendezvous, absl::Time deadline) {
  const int rank = rendezvous.rank();
  const int size = rendezvous.size();
  if (size < 1 || rank < 0 || rank >= size) {
    return absl::InvalidArgumentError(absl::StrCat("the rendezvous has rank ", rank, " of ", size));
  }
  // The transports call back into the engine, so their addresses are made before it knows its topology.
  auto shell = std::shared_ptr<Engine>(new Engine(Topology(rank, std::vector<std::string>(size, "?"))));
  COHORT_RETURN_IF_ERROR(shell->Connect(rendezvous, deadline));
  return shell;
}

absl::Status Engine::Connect(Rendezvous& rendezvous, absl::Time deadline) {
  const int rank = topology_.rank();
  const int size = topology_.size();
  transports_.push_back(std::make_unique<SelfTransport>(rank, this));
  routes_[rank] = transports_.back().get();
  if (size == 1) {
    topology_ = Topology(0, {HostIdentity()});
    return absl::OkStatus();
  }

  Card own;
  own.host = HostIdentity();
  own.mpi = mpi::MpiTransport::Address();
  std::unique_ptr<shm::ShmTransport> shm;
  if (SharedMemoryWanted()) {
    COHORT_ASSIGN_OR_RETURN(shm, shm::ShmTransport::Create(rank, size, this));
    own.shm = shm->Address();
  }
  COHORT_RETURN_IF_ERROR(rendezvous.Put(CardKey(rank), absl::StrCat(own.host, "\n", own.shm, "\n", own.mpi)));

  std::vector<Card> cards(size);
  std::vector<std::string> hosts(size);
  std::string attached(size, '0');
  std::vector<absl::Status> why(size);
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) {
      cards[peer] = own;
    } else {
      COHORT_ASSIGN_OR_RETURN(const std::string text, rendezvous.Get(CardKey(peer), deadline));
      COHORT_ASSIGN_OR_RETURN(cards[peer], ParseCard(peer, text));
    }
    hosts[peer] = cards[peer].host;
    if (peer == rank || shm == nullptr || cards[peer].shm.empty() || cards[peer].host != own.host) continue;
    why[peer] = shm->Attach(peer, cards[peer].shm);
    if (why[peer].ok()) attached[peer] = '1';
  }
  topology_ = Topology(rank, hosts);

  // A pair shares memory where both could attach; and nobody goes on before all have.
  COHORT_RETURN_IF_ERROR(rendezvous.Put(AttachedKey(rank), attached));
  bool needs_mpi = false;
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    COHORT_ASSIGN_OR_RETURN(const std::string theirs, rendezvous.Get(AttachedKey(peer), deadline));
    if (attached[peer] == '1' && static_cast<int>(theirs.size()) == size && theirs[rank] == '1') {
      routes_[peer] = shm.get();
      continue;
    }
    if (shm != nullptr) shm->Detach(peer);
    needs_mpi = true;
    if (own.mpi.empty() || cards[peer].mpi.empty()) {
      return absl::UnavailableError(
          absl::StrCat("no transport reaches rank ", peer, " on ", cards[peer].host, " from rank ", rank,
                       " on ", own.host, why[peer].ok() ? "" : absl::StrCat(" (", why[peer].ToString(), ")"),
                       ": between hosts, start the job with mpirun and a build that has MPI"));
    }
  }
  if (shm != nullptr) {
    doorbell_ = shm->doorbell();
    transports_.push_back(std::move(shm));
  }
  if (needs_mpi) {
    std::vector<std::string> addresses;
    for (const Card& card : cards) addresses.push_back(card.mpi);
    COHORT_ASSIGN_OR_RETURN(auto mpi, mpi::MpiTransport::Create(rank, addresses, this));
    for (int peer = 0; peer < size; ++peer) {
      if (routes_[peer] == nullptr) routes_[peer] = mpi.get();
    }
    transports_.push_back(std::move(mpi));
  }
  const bool own_core = topology_.local_size() <= static_cast<int>(std::thread::hardware_concurrency());
  spin_polls_ = own_core ? policy::kSpinPolls : policy::kSpinPollsShared;
  return absl::OkStatus();
}

}  // namespace cohort::comm
