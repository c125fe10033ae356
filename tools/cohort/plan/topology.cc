// cohort plan topology: what is found of the machine that it runs on, as a file that jobs and the other plans read.
#include "tools/cohort/plan/topology.h"

#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/communicator.h"
#include "comm/locality.h"
#include "comm/rendezvous.h"
#include "comm/topology_file.h"
#include "tools/cohort/plan/plan.h"

namespace cohort::tools {
namespace {

using comm::Communicator;

// What a rank says of where it runs, cut where it is long.
using Line = std::array<char, 256>;

Line Describe(const comm::Locality& found) {
  Line line = {};
  const auto numbered = [](int number) {
    return number < 0 ? std::string("several or none") : absl::StrCat(number);
  };
  const std::string text = absl::StrCat(
      "socket ", numbered(found.socket), ", NUMA domain ", numbered(found.numa), ", hardware threads ",
      found.bound_to.empty() ? "unknown" : found.bound_to, " of ", found.sockets, " sockets, ",
      found.numa_domains, " NUMA domains, ", found.last_level_caches, " last-level caches, ", found.cores,
      " cores, ", found.threads, " hardware threads");
  std::strncpy(line.data(), text.c_str(), line.size() - 1);
  return line;
}

absl::Status PlanTopology() {
  std::unique_ptr<Communicator> world = Communicator::Single();
  const auto begin = std::chrono::steady_clock::now();
  if (comm::LaunchedByMpi()) {
    COHORT_ASSIGN_OR_RETURN(auto board, comm::MpiRendezvous());
    COHORT_ASSIGN_OR_RETURN(world, Communicator::Create(std::move(board), {.topology = "measure"}));
  }
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
  const Line own = Describe(comm::FindLocality());
  std::vector<Line> lines(world->size());
  const std::vector<size_t> counts(world->size(), own.size());
  COHORT_RETURN_IF_ERROR(world->AllGather(own.data(), lines.data(), counts, DataType::kU8).Wait());
  if (world->rank() != 0) return absl::OkStatus();
  // The header first: what is printed is a topology file.
  const std::string text = world->TopologyText();
  const size_t header = text.find('\n') + 1;
  std::printf("%s", text.substr(0, header).c_str());
  std::printf("# %d ranks on %d hosts; they met, and measured what messages cost, in %.0f ms\n",
              world->size(), world->topology().num_hosts(), took.count());
  for (int rank = 0; rank < world->size(); ++rank) {
    const std::string& host = world->topology().host(world->topology().host_of(rank));
    std::printf("# rank %d on %s: %s\n", rank, host.substr(0, host.find('/')).c_str(), lines[rank].data());
  }
  std::printf("%s", text.substr(header).c_str());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<comm::Machine> ReadMachine(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot read the topology ", path));
  COHORT_ASSIGN_OR_RETURN(const comm::DescribedTopology described, comm::ParseTopology(text.str(), path));
  if (described.hosts == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": no hosts: say where the ranks are, as `hosts 4 ranks 8`"));
  }
  return described.prices.On(described.hosts);
}

void AddPlanTopology(CLI::App& plan, const Selected& selected) {
  CLI::App* app = plan.add_subcommand("topology",
                                      "What is found of this machine (or, under mpirun, of the job's): a "
                                      "file for COHORT_TOPOLOGY and --topology");
  app->callback([=] { selected([] { return PlanTopology(); }); });
}

}  // namespace cohort::tools
