#include "parallel/planner/cluster.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "comm/topology_file.h"
#include "parallel/global_sums.h"
#include "parallel/memory_share.h"
#include "parallel/planner/measure_layers.h"
#include "parallel/share_values.h"
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

// By one rank, while the others wait.
struct Alone {
  double flops = 0, update = 0;
  LayerTimes layers;
};

absl::StatusOr<Alone> MeasureAlone(runtime::Device& device, DataType compute, const ModelCost& model,
                                   const MeasuredRange& range, bool layers) {
  Alone alone;
  alone.update = MeasureUpdate(device, compute);
  if (!layers) {
    alone.flops = runtime::MeasureMatMulRate(device, compute, 0);
    return alone;
  }
  COHORT_ASSIGN_OR_RETURN(alone.layers, MeasureLayers(model, device, compute, range));
  alone.flops = alone.layers.BestRate(model);
  return alone;
}

// The largest of all ranks' numbers.
absl::StatusOr<double> Largest(comm::Communicator& world, double mine) {
  COHORT_RETURN_IF_ERROR(world.AllReduce(&mine, &mine, 1, DataType::kF64, comm::ReduceOp::kMax).Wait());
  return mine;
}

// What ranks take from each other: by blocks of the model that one runs alone, all run at once, and all run and meet one
// other after each.
absl::Status MeasureSharing(comm::Communicator& world, runtime::Device& device, DataType compute,
                            const ModelCost& model, Cluster& cluster) {
  absl::StatusOr<BlockLoad> load = BlockLoad::Create(model, device, compute, policy::kSharedTokens);
  COHORT_RETURN_IF_ERROR(AgreeOnSuccess(world, load.status(), "measuring what ranks take from each other"));
  std::vector<double> numbers = {0, 0};  // seconds of a run alone; runs
  absl::Status status;
  if (world.rank() == 0) {
    absl::StatusOr<double> first = load->Run(policy::kSharedRunsFewest);
    status = first.status();
    const double runs = policy::kSharedSeconds / std::max(1e-6, first.value_or(1));
    numbers[1] = std::clamp(std::floor(runs), static_cast<double>(policy::kSharedRunsFewest),
                            static_cast<double>(policy::kSharedRunsMost));
    if (first.ok()) first = load->Run(static_cast<int>(numbers[1]));
    numbers[0] = first.value_or(1);
  }
  COHORT_RETURN_IF_ERROR(AgreeOnSuccess(world, status, "measuring what ranks take from each other"));
  COHORT_RETURN_IF_ERROR(ShareValues(world, DataType::kF64, numbers));
  const int runs = static_cast<int>(numbers[1]);
  COHORT_ASSIGN_OR_RETURN(const auto pair, world.Split(world.rank() / 2, world.rank()));
  COHORT_RETURN_IF_ERROR(world.Barrier().Wait());
  absl::StatusOr<double> apart = load->Run(runs);
  COHORT_ASSIGN_OR_RETURN(const double together, Largest(world, apart.value_or(0)));
  double token = 0;
  const auto meet = [&] {
    return pair->AllReduce(&token, &token, 1, DataType::kF64, comm::ReduceOp::kSum).Wait();
  };
  const absl::StatusOr<double> met = load->Run(runs, meet);
  status = apart.status();
  status.Update(met.status());
  COHORT_RETURN_IF_ERROR(AgreeOnSuccess(world, status, "measuring what ranks take from each other"));
  COHORT_ASSIGN_OR_RETURN(const double meeting, Largest(world, *met));
  // And without anything to compute.
  std::vector<double> seconds(static_cast<size_t>(runs));
  for (double& one : seconds) {
    const auto begin = std::chrono::steady_clock::now();
    status.Update(meet());
    one = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  COHORT_RETURN_IF_ERROR(AgreeOnSuccess(world, status, "measuring what ranks take from each other"));
  std::sort(seconds.begin(), seconds.end());
  const double idle = seconds[seconds.size() / 2];
  COHORT_ASSIGN_OR_RETURN(cluster.meeting, Largest(world, idle));
  cluster.cores = std::clamp(numbers[0] / together, 1e-3, 1.0);
  cluster.drift = std::max(0.0, meeting - together - cluster.meeting);
  cluster.drift_after = together;
  return absl::OkStatus();
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
  // From a sequence that all share to a rank's part of the batch where all others share it.
  const auto length = static_cast<double>(work.sequence_length);
  const int ranks = world.size();
  const MeasuredRange range = {.fewest = std::max(1.0, length / ranks),
                               .most = length * static_cast<double>(work.global_batch),
                               .tensor = ranks,
                               .expert = ranks};
  Alone alone;
  absl::Status status;
  if (world.rank() == 0) {
    absl::StatusOr<Alone> measured = MeasureAlone(device, compute, model, range, layers);
    status = measured.status();
    if (measured.ok()) alone = *std::move(measured);
  }
  COHORT_RETURN_IF_ERROR(AgreeOnSuccess(world, status, "measuring what layers take"));
  std::vector<double> numbers = {alone.flops, alone.update};
  COHORT_RETURN_IF_ERROR(ShareValues(world, DataType::kF64, numbers));
  std::vector<double> points = alone.layers.Encode();
  COHORT_RETURN_IF_ERROR(ShareValues(world, DataType::kF64, points));
  COHORT_ASSIGN_OR_RETURN(Cluster cluster,
                          DescribedCluster(world.TopologyText(), "this job", numbers[0], memory));
  cluster.update_seconds = numbers[1];
  cluster.layers = LayerTimes::Decode(points);
  if (layers) {
    COHORT_RETURN_IF_ERROR(MeasureSharing(world, device, compute, model, cluster));
  } else {
    COHORT_ASSIGN_OR_RETURN(const double slowest,
                            Largest(world, 1 / runtime::MeasureMatMulRate(device, compute, 0)));
    cluster.cores = std::clamp(1 / (numbers[0] * slowest), 1e-3, 1.0);
  }
  return cluster;
}

}  // namespace cohort::parallel::planner
