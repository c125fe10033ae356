#include "parallel/planner/cluster.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "comm/topology_file.h"
#include "parallel/global_sums.h"
#include "parallel/memory_share.h"
#include "parallel/planner/measure_layers.h"
#include "runtime/ops/machine_rates.h"

namespace cohort::parallel::planner {

absl::StatusOr<Cluster> Cluster::First(int ranks) const {
  const comm::HostMap& all = *machine.hosts;
  if (ranks < 1 || ranks > all.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a plan for ", ranks, " ranks of a cluster of ", all.size()));
  }
  if (ranks == all.size()) return *this;
  std::vector<comm::HostMap::Place> places;
  for (int rank = 0; rank < ranks; ++rank) {
    places.push_back({all.host_of(rank), all.socket_of(rank), all.numa_of(rank)});
  }
  Cluster part = *this;
  part.machine.hosts = std::make_shared<const comm::HostMap>(places);
  return part;
}

absl::StatusOr<Cluster> DescribedCluster(absl::string_view topology, absl::string_view source, double flops,
                                         int64_t memory) {
  COHORT_ASSIGN_OR_RETURN(const comm::DescribedTopology described, comm::ParseTopology(topology, source));
  if (described.hosts == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": no hosts: say where the ranks are, as `hosts 4 ranks 8`"));
  }
  if (!(flops > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": a rank computes ", flops, " FLOP/s; it must be above 0"));
  }
  Cluster cluster;
  cluster.machine = described.prices.On(described.hosts);
  cluster.flops = flops;
  cluster.memory = memory;
  return cluster;
}

namespace {

// One rank's numbers on all.
absl::Status ShareNumbers(comm::Communicator& world, std::vector<double>& numbers) {
  auto size = static_cast<int64_t>(numbers.size());
  COHORT_RETURN_IF_ERROR(world.Broadcast(&size, 1, DataType::kI64, 0).Wait());
  numbers.resize(static_cast<size_t>(size));
  return world.Broadcast(numbers.data(), numbers.size(), DataType::kF64, 0).Wait();
}

struct Measured {
  double flops = 0, alone = 0, update = 0;  // alone: seconds of a block
  LayerTimes layers;
};

absl::StatusOr<Measured> MeasureAlone(runtime::Device& device, DataType compute, const ModelCost& model,
                                      const MeasuredRange& range, bool layers) {
  Measured measured;
  measured.update = MeasureUpdate(device, compute);
  measured.flops = runtime::MeasureMatMulRate(compute, 0);
  if (!layers) return measured;
  COHORT_ASSIGN_OR_RETURN(measured.layers, MeasureLayers(model, device, compute, range));
  COHORT_ASSIGN_OR_RETURN(measured.alone,
                          TimeOfBlock(model, device, compute, policy::kSharedTokens, policy::kSharedSeconds));
  return measured;
}

}  // namespace

absl::StatusOr<Cluster> RunningCluster(comm::Communicator& world, runtime::Device& device, DataType compute,
                                       const ModelCost& model, const Work& work) {
  COHORT_ASSIGN_OR_RETURN(const int64_t memory, ShareOfFreeMemory(device, world));
  int64_t largest = 0;
  for (int i = 0; i < kNumLayers; ++i) {
    largest = std::max(largest, model.layer(static_cast<Layer>(i)).parameters.total());
  }
  // Values, masters and gradients.
  const double bytes = static_cast<double>(largest) * (static_cast<double>(work.compute_bytes) + 8);
  const bool layers = bytes < policy::kMeasuredMemory * static_cast<double>(memory);
  // From one sequence over all ranks to a rank's share where all others of a stage share it.
  const auto length = static_cast<double>(work.sequence_length);
  const int ranks = world.size();
  const MeasuredRange range = {.fewest = std::max(1.0, length / ranks),
                               .most = length * static_cast<double>(work.global_batch),
                               .tensor = ranks,
                               .expert = ranks};
  Measured measured;
  absl::Status status;
  if (world.rank() == 0) {
    absl::StatusOr<Measured> alone = MeasureAlone(device, compute, model, range, layers);
    status = alone.status();
    if (alone.ok()) measured = *std::move(alone);
  }
  COHORT_RETURN_IF_ERROR(AgreeOnSuccess(world, status, "measuring what layers take"));
  std::vector<double> numbers = {measured.flops, measured.alone, measured.update};
  COHORT_RETURN_IF_ERROR(ShareNumbers(world, numbers));
  std::vector<double> points = measured.layers.Encode();
  COHORT_RETURN_IF_ERROR(ShareNumbers(world, points));
  double together = 0;
  if (layers) {
    absl::StatusOr<double> time =
        TimeOfBlock(model, device, compute, policy::kSharedTokens, policy::kSharedSeconds);
    status = time.status();
    together = time.value_or(0);
    COHORT_RETURN_IF_ERROR(AgreeOnSuccess(world, status, "measuring what ranks take from each other"));
  } else {
    numbers[1] = 1 / numbers[0];
    together = 1 / runtime::MeasureMatMulRate(compute, 0);
  }
  COHORT_RETURN_IF_ERROR(
      world.AllReduce(&together, &together, 1, DataType::kF64, comm::ReduceOp::kMax).Wait());
  COHORT_ASSIGN_OR_RETURN(Cluster cluster,
                          DescribedCluster(world.TopologyText(), "this job", numbers[0], memory));
  cluster.cores = std::clamp(numbers[1] / together, 1e-3, 1.0);
  cluster.update_seconds = numbers[2];
  cluster.layers = LayerTimes::Decode(points);
  return cluster;
}

}  // namespace cohort::parallel::planner
