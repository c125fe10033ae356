// Cohort as a contestant of its own benchmark.
#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "comm/algorithms/algorithm.h"
#include "comm/check.h"
#include "tools/cohort/bench_peers.h"

namespace cohort::tools {
namespace {

using comm::Operation;

constexpr int kTag = 0;

class CohortPeer : public Peer {
 public:
  CohortPeer(comm::Communicator& world, bool every_algorithm)
      : world_(world), every_algorithm_(every_algorithm) {}

  std::string name() const override { return "cohort"; }

  std::vector<std::string> Algorithms(const CollectiveCall& call) const override {
    if (call.operation == Operation::kPointToPoint) return {"send/recv"};
    std::vector<std::string> names;
    if (every_algorithm_) {
      for (const comm::Algorithm& algorithm : comm::Algorithms()) {
        if (algorithm.operation == call.operation) names.push_back(algorithm.name);
      }
      return names;
    }
    const size_t bytes = std::max(call.send_count, call.recv_count) * sizeof(float);
    return {world_.AlgorithmOf(call.operation, bytes)};
  }

  absl::StatusOr<RunOnce> Prepare(const CollectiveCall& call, const std::string& algorithm) override {
    const std::vector<size_t> counts(call.size, call.block);
    COHORT_ASSIGN_OR_RETURN(comm::Communicator* const group, GroupFor(call.operation, algorithm));
    comm::Communicator& world = *group;
    const auto dtype = DataType::kF32;
    switch (call.operation) {
      case Operation::kAllReduce:
        return [=, &world] { return world.AllReduce(call.send, call.recv, call.block, dtype).Wait(); };
      case Operation::kReduceScatter:
        return [=, &world] { return world.ReduceScatter(call.send, call.recv, counts, dtype).Wait(); };
      case Operation::kAllGather:
        return [=, &world] { return world.AllGather(call.send, call.recv, counts, dtype).Wait(); };
      case Operation::kBroadcast:
        return [=, &world] { return world.Broadcast(call.recv, call.block, dtype, 0).Wait(); };
      case Operation::kAllToAll:
        return [=, &world] { return world.AllToAll(call.send, call.recv, call.block, dtype).Wait(); };
      case Operation::kAllToAllV:
        return [=, &world] { return world.AllToAllV(call.send, counts, call.recv, counts, dtype).Wait(); };
      case Operation::kPointToPoint:
        return [=, &world] { return RoundTrip(world, call); };
      default:
        return absl::UnimplementedError("cohort bench collectives does not measure this operation");
    }
  }

 private:
  static absl::Status RoundTrip(comm::Communicator& world, const CollectiveCall& call) {
    const auto send = [&](int to) {
      return world.Send(call.send, call.block, DataType::kF32, to, kTag).Wait();
    };
    const auto recv = [&](int from) {
      return world.Recv(call.recv, call.block, DataType::kF32, from, kTag).Wait();
    };
    absl::Status status;
    if (call.rank == 0) {
      status = send(call.peer);
      if (status.ok()) status = recv(call.peer);
    } else if (call.rank == call.peer) {
      status = recv(0);
      if (status.ok()) status = send(0);
    }
    return status;
  }

  // The world, or a group of all its ranks that knows no other algorithm.
  absl::StatusOr<comm::Communicator*> GroupFor(Operation operation, const std::string& algorithm) {
    if (!every_algorithm_ || operation == Operation::kPointToPoint) return &world_;
    const std::string collectives = absl::StrCat(comm::Name(operation), "=", algorithm);
    std::unique_ptr<comm::Communicator>& group = groups_[collectives];
    if (group == nullptr) {
      COHORT_ASSIGN_OR_RETURN(group, world_.Split(0, world_.rank()));
      COHORT_RETURN_IF_ERROR(group->SetCollectives(collectives));
    }
    return group.get();
  }

  comm::Communicator& world_;
  const bool every_algorithm_;
  std::map<std::string, std::unique_ptr<comm::Communicator>> groups_;  // by what they were told
};

}  // namespace

std::unique_ptr<Peer> MakeCohortPeer(comm::Communicator& world, bool every_algorithm) {
  return std::make_unique<CohortPeer>(world, every_algorithm);
}

}  // namespace cohort::tools
