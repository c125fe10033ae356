#include "tools/cohort/bench/collective_calls.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace cohort::tools {
namespace {

using comm::Operation;

constexpr size_t kRoundTripBytes = 8;

// Small whole numbers: sums of them are exact in f32, in whatever order.
float Input(int rank, size_t index) {
  return static_cast<float>(rank + 1) * static_cast<float>(index % 13 + 1);
}

float Sum(int size, size_t index) {
  float sum = 0;
  for (int rank = 0; rank < size; ++rank) sum += Input(rank, index);
  return sum;
}

float Transposed(int rank, int, size_t block, size_t index) {
  return Input(static_cast<int>(index / block), rank * block + index % block);
}

const CollectiveOperation kOperations[] = {
    {.operation = Operation::kAllReduce,
     .expected = [](int, int size, size_t, size_t index) { return Sum(size, index); }},
    {.operation = Operation::kReduceScatter,
     .send_all = true,
     .expected = [](int rank, int size, size_t block,
                    size_t index) { return Sum(size, rank * block + index); }},
    {.operation = Operation::kAllGather,
     .recv_all = true,
     .expected = [](int, int, size_t block,
                    size_t index) { return Input(static_cast<int>(index / block), index % block); }},
    {.operation = Operation::kAllToAll, .send_all = true, .recv_all = true, .expected = Transposed},
    {.operation = Operation::kAllToAllV, .send_all = true, .recv_all = true, .expected = Transposed},
    {.operation = Operation::kBroadcast,
     .expected = [](int, int, size_t, size_t index) { return Input(0, index); }},
    {.operation =
         Operation::kPointToPoint},  // there and back between rank 0 and the first rank of another host
};

// The first rank that is not on rank 0's host; the last one where there is no other host.
int RoundTripPeer(const comm::Topology& topology) {
  return topology.num_hosts() > 1 ? topology.ranks_on(1)[0] : topology.size() - 1;
}

}  // namespace

std::vector<size_t> CollectiveOperation::Sizes(const std::vector<size_t>& wanted, int size) const {
  if (operation == Operation::kPointToPoint) return {kRoundTripBytes};
  const size_t unit = sizeof(float) * static_cast<size_t>(Blocks(size));
  std::set<size_t> sizes;
  for (size_t bytes : wanted) sizes.insert(std::max(bytes / unit, size_t{1}) * unit);
  return {sizes.begin(), sizes.end()};
}

absl::StatusOr<std::vector<const CollectiveOperation*>> ChosenOperations(
    const std::vector<std::string>& names) {
  std::vector<const CollectiveOperation*> chosen;
  for (const CollectiveOperation& operation : kOperations) {
    if (names.empty() || std::find(names.begin(), names.end(), Name(operation.operation)) != names.end()) {
      chosen.push_back(&operation);
    }
  }
  for (const std::string& name : names) {
    if (std::none_of(chosen.begin(), chosen.end(), [&](auto* one) { return name == Name(one->operation); })) {
      return absl::InvalidArgumentError(
          absl::StrCat("--ops: there is no operation '", name, "': there are ", OperationNames()));
    }
  }
  return chosen;
}

std::string OperationNames() {
  return absl::StrJoin(kOperations, ", ", [](std::string* out, const CollectiveOperation& operation) {
    absl::StrAppend(out, Name(operation.operation));
  });
}

std::string Describe(const CollectiveCall& call) {
  return absl::StrCat(Name(call.operation), " of ",
                      std::max(call.send_count, call.recv_count) * sizeof(float), " bytes");
}

BenchBuffers::BenchBuffers(const CollectiveOperation& operation, const comm::Communicator& world,
                           size_t bytes)
    : operation_(operation) {
  const auto size = static_cast<size_t>(world.size());
  const size_t block = bytes / sizeof(float) / static_cast<size_t>(operation.Blocks(world.size()));
  send_.resize(operation.send_all ? block * size : block);
  recv_.resize(operation.recv_all ? block * size : block);
  call_ = {.operation = operation.operation,
           .rank = world.rank(),
           .size = world.size(),
           .block = block,
           .send = send_.data(),
           .recv = recv_.data(),
           .send_count = send_.size(),
           .recv_count = recv_.size(),
           .peer = RoundTripPeer(world.topology())};
}

void BenchBuffers::Fill() {
  for (size_t i = 0; i < send_.size(); ++i) send_[i] = Input(call_.rank, i);
  std::fill(recv_.begin(), recv_.end(), NAN);
  // A broadcast happens in recv.
  if (call_.operation == Operation::kBroadcast && call_.rank == 0) recv_ = send_;
}

bool BenchBuffers::Correct(double tolerance) const {
  if (operation_.expected == nullptr) return true;
  const auto expected = [&](size_t i) { return operation_.expected(call_.rank, call_.size, call_.block, i); };
  float largest = 0;
  for (size_t i = 0; i < recv_.size() && tolerance > 0; ++i) largest = std::max(largest, expected(i));
  const double allowed = tolerance * largest;
  for (size_t i = 0; i < recv_.size(); ++i) {
    if (!(std::abs(recv_[i] - expected(i)) <= allowed)) return false;  // also where it is NaN
  }
  return true;
}

}  // namespace cohort::tools
