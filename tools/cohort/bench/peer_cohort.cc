// Cohort as a contestant of its own benchmark.
#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "comm/algorithms/algorithm.h"
#include "comm/check.h"
#include "comm/codec/quantized_collectives.h"
#include "comm/codec/schedules.h"
#include "tools/cohort/bench/peers.h"

namespace cohort::tools {
namespace {

using comm::Operation;

constexpr int kTag = 0;

bool HasCodecs(Operation operation) {
  const auto algorithms = comm::QuantizedAlgorithms();
  return std::any_of(algorithms.begin(), algorithms.end(),
                     [&](const comm::Algorithm& algorithm) { return algorithm.operation == operation; });
}

class CohortPeer : public Peer {
 public:
  CohortPeer(comm::Communicator& world, CohortWays ways) : world_(world), ways_(std::move(ways)) {}

  std::string name() const override { return "cohort"; }

  std::vector<std::string> Algorithms(const CollectiveCall& call) const override {
    if (call.operation == Operation::kPointToPoint) return {"send/recv"};
    std::vector<std::string> names;
    const auto add = [&](const std::string& name) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    };
    if (ways_.every_algorithm) {
      for (const comm::Algorithm& algorithm : comm::Algorithms()) {
        if (algorithm.operation == call.operation) add(algorithm.name);
      }
      return names;
    }
    for (const std::string& name : ways_.algorithms) {
      if (name == kChosen) {
        add(ChosenFor(call));
      } else if (comm::FindAlgorithm(call.operation, name) != nullptr) {
        add(name);
      }
    }
    if (!HasCodecs(call.operation)) return names;
    for (const std::string& name : ways_.codecs) add(name);
    return names;
  }

  bool Chosen(const CollectiveCall& call, const std::string& algorithm) const override {
    return call.operation == Operation::kPointToPoint || algorithm == ChosenFor(call);
  }

  double Tolerance(const CollectiveCall&, const std::string& algorithm) const override {
    // A sum is encoded twice: each host's, and all of them.
    const comm::Codec* codec = comm::FindCodec(algorithm);
    return codec == nullptr ? 0 : 2 * codec->max_error;
  }

  absl::StatusOr<RunOnce> Prepare(const CollectiveCall& call, const std::string& algorithm) override {
    if (const comm::Codec* codec = comm::FindCodec(algorithm); codec != nullptr) {
      return PrepareQuantized(call, codec->kind);
    }
    const std::vector<size_t> counts(call.size, call.block);
    COHORT_ASSIGN_OR_RETURN(comm::Communicator* const group, GroupFor(call, algorithm));
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
  std::string ChosenFor(const CollectiveCall& call) const {
    return world_.AlgorithmOf(call.operation, std::max(call.send_count, call.recv_count) * sizeof(float));
  }

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

  absl::StatusOr<RunOnce> PrepareQuantized(const CollectiveCall& call, comm::CodecKind codec) {
    const std::vector<size_t> counts(call.size, call.block);
    const auto dtype = DataType::kF32;
    comm::Communicator& world = world_;
    const comm::QuantizedOptions options{.codec = codec};
    switch (call.operation) {
      case Operation::kAllReduce:
        return [=, &world] {
          return comm::QuantizedAllReduce(world, call.send, call.recv, call.block, dtype, options).Wait();
        };
      case Operation::kReduceScatter:
        return [=, &world] {
          return comm::QuantizedReduceScatter(world, call.send, call.recv, counts, dtype, options).Wait();
        };
      case Operation::kAllGather:
        return [=, &world] {
          return comm::QuantizedAllGather(world, call.send, call.recv, counts, dtype, options).Wait();
        };
      case Operation::kAllToAll:
        return [=, &world] {
          return comm::QuantizedAllToAll(world, call.send, call.recv, call.block, dtype, options).Wait();
        };
      case Operation::kAllToAllV:
        return [=, &world] {
          return comm::QuantizedAllToAllV(world, call.send, counts, call.recv, counts, dtype, options).Wait();
        };
      default:
        return absl::UnimplementedError("this operation has no codecs");
    }
  }

  // The world where the tuner takes this algorithm, or a group of all its ranks that knows no other.
  absl::StatusOr<comm::Communicator*> GroupFor(const CollectiveCall& call, const std::string& algorithm) {
    if (call.operation == Operation::kPointToPoint) return &world_;
    if (!ways_.every_algorithm && algorithm == ChosenFor(call)) return &world_;
    const std::string collectives = absl::StrCat(comm::Name(call.operation), "=", algorithm);
    std::unique_ptr<comm::Communicator>& group = groups_[collectives];
    if (group == nullptr) {
      COHORT_ASSIGN_OR_RETURN(group, world_.Split(0, world_.rank()));
      COHORT_RETURN_IF_ERROR(group->SetCollectives(collectives));
    }
    return group.get();
  }

  comm::Communicator& world_;
  const CohortWays ways_;
  std::map<std::string, std::unique_ptr<comm::Communicator>> groups_;  // by what they were told
};

}  // namespace

absl::StatusOr<std::unique_ptr<Peer>> MakeCohortPeer(comm::Communicator& world, CohortWays ways) {
  const auto all = comm::Algorithms();
  for (const std::string& name : ways.algorithms) {
    const bool known = std::any_of(all.begin(), all.end(), [&](const auto& one) { return one.name == name; });
    if (name == kChosen || known) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--algorithms: there is no algorithm '", name,
                     "': `cohort plan collectives` lists those of an operation"));
  }
  for (const std::string& name : ways.codecs) {
    if (comm::FindCodec(name) != nullptr) continue;
    std::string known;
    for (const comm::Codec& codec : comm::Codecs()) absl::StrAppend(&known, " ", codec.name);
    return absl::InvalidArgumentError(
        absl::StrCat("--codec: there is no codec '", name, "': there are", known));
  }
  return std::make_unique<CohortPeer>(world, std::move(ways));
}

}  // namespace cohort::tools
