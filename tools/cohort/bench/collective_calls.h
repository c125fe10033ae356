// The operations that `cohort bench collectives` measures, as one table, and the buffers of a call.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "tools/cohort/bench/peers.h"

namespace cohort::tools {

// How an operation uses its buffers: in blocks, of which `send_all` and `recv_all` say whether there is one a
// rank.
struct CollectiveOperation {
  comm::Operation operation;
  bool send_all = false;
  bool recv_all = false;
  // Element `index` of the result on `rank` of `size` ranks, for the input that Input() gives. nullptr: not
  // checked.
  float (*expected)(int rank, int size, size_t block, size_t index) = nullptr;

  int Blocks(int size) const { return send_all || recv_all ? size : 1; }
  // The wanted sizes, rounded to whole blocks of at least one element, without repetitions. A round trip has
  // one.
  std::vector<size_t> Sizes(const std::vector<size_t>& wanted, int size) const;
};

// Those of the names, in the table's order; all collectives where there are none.
absl::StatusOr<std::vector<const CollectiveOperation*>> ChosenOperations(
    const std::vector<std::string>& names);

// "all-reduce, reduce-scatter, ...".
std::string OperationNames();

// "all-reduce of 1024 bytes".
std::string Describe(const CollectiveCall& call);

// What the call reads and writes. `bytes` is one of the operation's Sizes().
class BenchBuffers {
 public:
  BenchBuffers(const CollectiveOperation& operation, const comm::Communicator& world, size_t bytes);

  const CollectiveCall& call() const { return call_; }
  // Writes the input, and rubbish where the result goes.
  void Fill();
  // Whether the result is right, give or take so large a part of its largest element.
  bool Correct(double tolerance) const;

 private:
  const CollectiveOperation& operation_;
  std::vector<float> send_, recv_;
  CollectiveCall call_;
};

}  // namespace cohort::tools
