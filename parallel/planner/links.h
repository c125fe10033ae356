// What the groups of a mesh pay for their collectives, from comm's prices of single algorithms.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "comm/operation.h"
#include "comm/pricing.h"

namespace cohort::parallel::planner {

// A group of a mesh: `size` ranks whose places in the mesh are `stride` apart.
struct GroupShape {
  int size = 1;
  int stride = 1;
};

// Groups as the mesh lays them out: ranks host by host, groups of neighbours on one host where they fit. All groups
// of one kind talk at the same time: those that share a host share its links. Hosts are taken to be as large as
// the largest. Not thread-safe: prices are kept.
class LinkPrices {
 public:
  // `scale`: how much longer messages take than their prices say (calibration.h).
  explicit LinkPrices(comm::Machine machine, double scale = 1);

  int ranks_per_host() const { return ranks_per_host_; }
  int hosts() const { return machine_.hosts->num_hosts(); }

  // Members of such a group on one host.
  int OnOneHost(GroupShape group) const;
  // The machine as one such group has it while the others of its kind communicate too. `size`: of these ranks only.
  comm::Machine MachineOf(GroupShape group, int size) const;

  // Seconds of the fastest algorithm. `bytes` is TotalCount in bytes (comm/operation.h): the whole buffer; of an
  // all-to-all what a rank sends. Exact (PriceOf) at five sizes, straight lines between them.
  double Seconds(comm::Operation operation, GroupShape group, double bytes);
  // Of one message from every rank of a ring or a pipeline to its next one, on the slowest hop.
  double Send(GroupShape ring, double bytes) const;

 private:
  static constexpr int kSizes = 5;
  using Curve = std::array<double, kSizes>;  // seconds; negative: not known yet

  double AtSize(comm::Operation operation, GroupShape group, int size_index);
  double Cheapest(comm::Operation operation, GroupShape group, int ranks, int size_index);
  // What tells the machines of groups apart (MachineOf), beside their size.
  struct Place {
    int together;  // on one host
    int stride;    // of these
    int racks;     // hosts per rack
    int rails;
    double own;  // part of a rail
    friend auto operator<=>(const Place&, const Place&) = default;
  };
  Place PlaceOf(GroupShape group) const;

  comm::Machine machine_;
  double scale_;
  int ranks_per_host_;
  std::unordered_map<uint64_t, Curve> curves_;  // by operation, size and stride
  // Of many groups' first ranks: by operation, ranks, index of the size.
  std::map<std::tuple<comm::Operation, int, int, Place>, double> cheapest_;
};

}  // namespace cohort::parallel::planner
