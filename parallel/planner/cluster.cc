#include "parallel/planner/cluster.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "comm/topology_file.h"
#include "parallel/memory_share.h"
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

absl::StatusOr<Cluster> RunningCluster(comm::Communicator& world, runtime::Device& device, DataType compute) {
  const double own = runtime::MeasureMatMulRate(compute);
  std::vector<double> rates(world.size());
  const std::vector<size_t> counts(world.size(), sizeof(double));
  COHORT_RETURN_IF_ERROR(world.AllGather(&own, rates.data(), counts, DataType::kU8).Wait());
  COHORT_ASSIGN_OR_RETURN(const int64_t memory, ShareOfFreeMemory(device, world));
  return DescribedCluster(world.TopologyText(), "this job", *std::min_element(rates.begin(), rates.end()),
                          memory);
}

}  // namespace cohort::parallel::planner
