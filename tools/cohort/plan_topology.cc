#include "tools/cohort/plan_topology.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"

namespace cohort::tools {
namespace {

constexpr int kMostRanks = 4 << 20;
// Of a message on a link, where the file says nothing.
constexpr double kGapMicros = 0.1;

class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path) {}

  absl::StatusOr<comm::Machine> Read(const YAML::Node& root) const {
    COHORT_RETURN_IF_ERROR(CheckKeys(
        root, {"hosts", "ranks_per_socket", "hosts_per_rack", "rails", "links", "memory_gbit_per_s"}));
    comm::Machine machine;
    COHORT_ASSIGN_OR_RETURN(machine.hosts, ReadHosts(root));
    COHORT_ASSIGN_OR_RETURN(machine.ranks_per_socket, Whole(root, "ranks_per_socket", 0, 0));
    COHORT_ASSIGN_OR_RETURN(machine.hosts_per_rack, Whole(root, "hosts_per_rack", 0, 0));
    COHORT_ASSIGN_OR_RETURN(machine.rails, Whole(root, "rails", 0, 0));
    COHORT_ASSIGN_OR_RETURN(const double memory, Positive(root, "memory_gbit_per_s", 80));
    machine.local_seconds_per_byte = 8e-9 / memory;
    const YAML::Node links = root["links"];
    if (!links) return Bad(root, "no links: say what a message costs, as in examples/clusters/racks.yaml");
    const char* const names[] = {"inside_socket", "inside_host", "between_hosts", "between_racks"};
    COHORT_RETURN_IF_ERROR(CheckKeys(links, {names[0], names[1], names[2], names[3]}));
    for (int i = 0; i < comm::kNumDistances; ++i) {
      const bool needed = i == 1 || (i == 2 && machine.hosts->num_hosts() > 1);
      if (!links[names[i]]) {
        if (needed) return Bad(links, absl::StrCat("no ", names[i], " among the links"));
        continue;
      }
      COHORT_ASSIGN_OR_RETURN(machine.price[i], ReadLink(links[names[i]], &machine.gap[i]));
    }
    // What is not said is as the level inside or below it.
    if (!links[names[0]]) {
      machine.price[0] = machine.price[1];
      machine.gap[0] = machine.gap[1];
    }
    if (!links[names[2]]) {
      machine.price[2] = machine.price[1];
      machine.gap[2] = machine.gap[1];
    }
    if (!links[names[3]]) {
      machine.price[3] = machine.price[2];
      machine.gap[3] = machine.gap[2];
    }
    return machine;
  }

  absl::Status Bad(const YAML::Node& node, const std::string& problem) const {
    const int line = node.Mark().line;
    return absl::InvalidArgumentError(line < 0 ? absl::StrCat(path_, ": ", problem)
                                               : absl::StrCat(path_, ":", line + 1, ": ", problem));
  }

 private:
  absl::Status CheckKeys(const YAML::Node& node, const std::vector<std::string>& known) const {
    if (!node.IsMap()) return Bad(node, absl::StrCat("expected a section with ", absl::StrJoin(known, ", ")));
    for (const auto& entry : node) {
      const std::string key = entry.first.Scalar();
      if (std::find(known.begin(), known.end(), key) != known.end()) continue;
      return Bad(entry.first,
                 absl::StrCat("unknown key '", key, "'; known keys: ", absl::StrJoin(known, ", ")));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<double> Positive(const YAML::Node& map, const char* key, double otherwise) const {
    const YAML::Node node = map[key];
    if (!node) return otherwise;
    double value = 0;
    if (!node.IsScalar() || !YAML::convert<double>::decode(node, value) || !(value > 0) ||
        !std::isfinite(value)) {
      return Bad(node, absl::StrCat(key, " must be a number above 0"));
    }
    return value;
  }

  absl::StatusOr<int> Whole(const YAML::Node& map, const char* key, int otherwise, int least) const {
    const YAML::Node node = map[key];
    if (!node) return otherwise;
    int value = 0;
    if (!node.IsScalar() || !YAML::convert<int>::decode(node, value) || value < least || value > kMostRanks) {
      return Bad(node, absl::StrCat(key, " must be a whole number from ", least, " to ", kMostRanks));
    }
    return value;
  }

  absl::StatusOr<std::shared_ptr<const comm::HostMap>> ReadHosts(const YAML::Node& root) const {
    const YAML::Node groups = root["hosts"];
    if (!groups) return Bad(root, "no hosts: list groups of them, as {count: 4, ranks: 8}");
    if (!groups.IsSequence() || groups.size() == 0) {
      return Bad(groups, "hosts must be a list of groups, as {count: 4, ranks: 8}");
    }
    std::vector<int> host_of;
    int host = 0;
    for (const YAML::Node& group : groups) {
      COHORT_RETURN_IF_ERROR(CheckKeys(group, {"count", "ranks"}));
      if (!group["ranks"]) return Bad(group, "a group of hosts without ranks");
      COHORT_ASSIGN_OR_RETURN(const int count, Whole(group, "count", 1, 1));
      COHORT_ASSIGN_OR_RETURN(const int ranks, Whole(group, "ranks", 1, 1));
      if (static_cast<int64_t>(count) * ranks + static_cast<int64_t>(host_of.size()) > kMostRanks) {
        return Bad(group, absl::StrCat("more than ", kMostRanks, " ranks in all"));
      }
      for (int i = 0; i < count; ++i) host_of.insert(host_of.end(), ranks, host++);
    }
    return std::make_shared<const comm::HostMap>(host_of);
  }

  absl::StatusOr<comm::LinkPrice> ReadLink(const YAML::Node& node, double* gap) const {
    COHORT_RETURN_IF_ERROR(CheckKeys(node, {"latency_us", "gbit_per_s", "gap_us"}));
    for (const char* key : {"latency_us", "gbit_per_s"}) {
      if (!node[key]) return Bad(node, absl::StrCat("a link without ", key));
    }
    COHORT_ASSIGN_OR_RETURN(const double latency, Positive(node, "latency_us", 0));
    COHORT_ASSIGN_OR_RETURN(const double rate, Positive(node, "gbit_per_s", 0));
    COHORT_ASSIGN_OR_RETURN(const double gap_us, Positive(node, "gap_us", kGapMicros));
    *gap = gap_us * 1e-6;
    return comm::LinkPrice{latency * 1e-6, 8e-9 / rate};
  }

  const std::string path_;
};

}  // namespace

absl::StatusOr<comm::Machine> ReadTopology(const std::string& path) {
  const Reader reader(path);
  try {
    return reader.Read(YAML::LoadFile(path));
  } catch (const YAML::BadFile&) {
    return absl::InvalidArgumentError(absl::StrCat("cannot read the topology ", path));
  } catch (const YAML::Exception& error) {  // no YAML
    return absl::InvalidArgumentError(absl::StrCat(path, ":", error.mark.line + 1, ": ", error.msg));
  }
}

}  // namespace cohort::tools
