// What `cohort bench collectives` compares: Cohort and its peers behind one interface. A new peer is one
// file, one Make function below and its row in the table of bench_collectives.cc.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "comm/operation.h"

namespace cohort::tools {

// One collective of f32, not in place but for a broadcast, which happens in `recv`. Sums where it reduces;
// rank 0 is the root where there is one. A round trip (kPointToPoint) goes from rank 0 to `peer` and back.
struct CollectiveCall {
  comm::Operation operation = comm::Operation::kAllReduce;
  int rank = 0;
  int size = 1;
  size_t block = 0;  // elements of what one rank contributes, or gets: see CollectiveOperation
  const float* send = nullptr;
  float* recv = nullptr;
  size_t send_count = 0;  // elements in `send`
  size_t recv_count = 0;  // and in `recv`
  int peer = 0;
};

// A call made ready: runs it once, and returns when this rank's part is over.
using RunOnce = std::function<absl::Status()>;

class Peer {
 public:
  virtual ~Peer() = default;
  // As it stands in the rows: cohort, openmpi, gloo.
  virtual std::string name() const = 0;
  // The ways it has to do the call, each measured on its own; none where it does not have the operation.
  // Equal on all ranks.
  virtual std::vector<std::string> Algorithms(const CollectiveCall& call) const = 0;
  // Makes the call ready. All ranks call it together. The result of the first run is in recv's first
  // elements; later runs may leave other numbers there where the peer works in place.
  virtual absl::StatusOr<RunOnce> Prepare(const CollectiveCall& call, const std::string& algorithm) = 0;
  // Whether its users get this one where they ask for nothing; of a peer whose users choose, all of them.
  virtual bool Chosen(const CollectiveCall&, const std::string&) const { return true; }
  // How far results may be from the exact ones, as a part of the largest.
  virtual double Tolerance(const CollectiveCall&, const std::string&) const { return 0; }
  // Held while its runs are timed, so that nobody else uses the same library.
  virtual std::unique_lock<std::mutex> Exclusive() { return {}; }
};

// Makes MPI ready for the benchmark, before anything else starts it: with MPI_THREAD_SERIALIZED, because Open
// MPI takes locks in every call under MPI_THREAD_MULTIPLE, which its users rarely ask for. Nothing without
// MPI.
absl::Status StartMpiForBench();

// How Cohort makes the calls, each way measured on its own.
struct CohortWays {
  bool every_algorithm = false;
  // By name, where the operation has one of it; kChosen is what the tuner takes.
  std::vector<std::string> algorithms = {};
  // Codecs of the wire, by name, where the operation can have one. The way is called by the codec.
  std::vector<std::string> codecs = {};
};
inline constexpr char kChosen[] = "chosen";

// An error where a name is unknown.
absl::StatusOr<std::unique_ptr<Peer>> MakeCohortPeer(comm::Communicator& world, CohortWays ways);
// The MPI of this job, by the name of its library where `name` is empty. nullptr: this is a build without it.
absl::StatusOr<std::unique_ptr<Peer>> MakeMpiPeer(comm::Communicator& world, const std::string& name);
// Gloo over TCP. nullptr: this is a build without it.
absl::StatusOr<std::unique_ptr<Peer>> MakeGlooPeer(comm::Communicator& world);

}  // namespace cohort::tools
