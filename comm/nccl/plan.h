// What one rank does for one collective on device memory, as data: calls of NCCL, and between hosts pieces that go through
// pinned memory. Made by pure functions of the call and of where the ranks are.
//
// Two forms. In the flat one NCCL does everything (plan_flat.cc). In the hierarchical one NCCL works inside each host, and
// the base communicator's network carries what must cross (plan_hosts.cc): L ranks of each host, as many as the host with
// the fewest has, are its lanes, and each lane carries its part of the data to the lanes of the same number on the
// other hosts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "comm/nccl/nccl_api.h"
#include "comm/operation.h"

namespace cohort::comm::nccl {

enum class Buffer : uint8_t { kSend, kRecv, kScratch };

// A place in a buffer, in elements.
struct Place {
  Buffer buffer = Buffer::kRecv;
  size_t at = 0;
};

// One call of NCCL's, or a copy on this device where `copy` is set.
struct Step {
  CallKind kind = CallKind::kAllReduce;
  Place from;
  Place to;
  size_t count = 0;
  int peer = 0;  // in the plan's team
  bool copy = false;
};

// Elements between device memory and place `at` of pinned memory.
struct Segment {
  Place place;
  size_t count = 0;
  size_t at = 0;
};

// What the lanes of one number do together with a piece: an all-reduce, all-gather, reduce-scatter, broadcast or reduce
// of pinned memory. By host: counts, root.
struct HostCall {
  Operation operation = Operation::kAllReduce;
  size_t count = 0;
  std::vector<size_t> counts;
  int root = 0;

  // Elements of pinned memory that host `host` needs for its input and its output. A broadcast has an output only, which
  // is the input of its root.
  size_t input(int host) const;
  size_t output(int host) const;
};

struct Piece {
  std::vector<Segment> out;  // device to input (output, of a broadcast)
  HostCall call;
  std::vector<Segment> in;  // output to device
};

enum class Team : uint8_t { kAll, kInside };

struct Plan {
  Team team = Team::kAll;
  std::vector<Step> before;  // one group of calls
  bool crosses = false;      // equal on all ranks: whether there are pieces on any
  std::vector<Piece> pieces;
  std::vector<Step> after;  // one group of calls
  size_t scratch = 0;       // elements
};

// NCCL over all ranks: every operation but those of tokens.
Plan FlatPlan(const Collective& call);
// Whether HierarchicalPlan knows the operation.
bool HasHierarchicalPlan(Operation operation);
// NCCL inside hosts, and pieces of at most so many elements between them. `call.hosts` is set and has several.
Plan HierarchicalPlan(const Collective& call, size_t piece_elements);

}  // namespace cohort::comm::nccl
