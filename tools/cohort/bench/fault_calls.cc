#include "tools/cohort/bench/fault_calls.h"

#include <cmath>
#include <iterator>
#include <numeric>
#include <vector>

#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/codec/quantized_collectives.h"

namespace cohort::tools {
namespace {

using comm::Communicator;
using Counts = std::vector<size_t>;

// Small whole numbers: sums of them are exact in any order.
float Value(int rank, size_t index, uint32_t seed) {
  return static_cast<float>((static_cast<size_t>(rank) * 31 + index * 7 + seed) % 61 + 1);
}

// What codecs keep: all elements of a block are its scale.
constexpr float kQuantizedError = 1e-4f;

// One call under way: its operands and what it must give.
class Trial {
 public:
  Trial(Communicator& group, const FaultCall& call)
      : group_(group), call_(call), size_(group.size()), rank_(group.rank()) {}

  absl::Status AllReduce() {
    const std::vector<float> send = Own(call_.count);
    std::vector<float> recv(send.size());
    COHORT_RETURN_IF_ERROR(group_.AllReduce(send.data(), recv.data(), send.size(), DataType::kF32).Wait());
    return Check(recv, 0, call_.count, [&](size_t i) { return Sum(i); });
  }

  absl::Status ReduceScatter() {
    const Counts counts = Uneven();
    const std::vector<float> send = Own(Total(counts));
    std::vector<float> recv(counts[rank_]);
    COHORT_RETURN_IF_ERROR(group_.ReduceScatter(send.data(), recv.data(), counts, DataType::kF32).Wait());
    const size_t before = Before(counts, rank_);
    return Check(recv, 0, recv.size(), [&](size_t i) { return Sum(before + i); });
  }

  absl::Status AllGather() {
    const Counts counts = Uneven();
    const std::vector<float> send = Own(counts[rank_]);
    std::vector<float> recv(Total(counts));
    COHORT_RETURN_IF_ERROR(group_.AllGather(send.data(), recv.data(), counts, DataType::kF32).Wait());
    return CheckParts(recv, counts);
  }

  absl::Status Broadcast() {
    std::vector<float> data = rank_ == Root() ? Own(call_.count) : std::vector<float>(call_.count);
    COHORT_RETURN_IF_ERROR(group_.Broadcast(data.data(), data.size(), DataType::kF32, Root()).Wait());
    return Check(data, 0, data.size(), [&](size_t i) { return Value(Root(), i, call_.seed); });
  }

  absl::Status Reduce() {
    const std::vector<float> send = Own(call_.count);
    std::vector<float> recv(rank_ == Root() ? send.size() : 0);
    COHORT_RETURN_IF_ERROR(
        group_.Reduce(send.data(), recv.data(), send.size(), DataType::kF32, Root()).Wait());
    return Check(recv, 0, recv.size(), [&](size_t i) { return Sum(i); });
  }

  absl::Status Gather() {
    const Counts counts = Uneven();
    const std::vector<float> send = Own(counts[rank_]);
    std::vector<float> recv(rank_ == Root() ? Total(counts) : 0);
    COHORT_RETURN_IF_ERROR(group_.Gather(send.data(), recv.data(), counts, DataType::kF32, Root()).Wait());
    return rank_ == Root() ? CheckParts(recv, counts) : absl::OkStatus();
  }

  absl::Status Scatter() {
    const Counts counts = Uneven();
    const std::vector<float> send = rank_ == Root() ? Own(Total(counts)) : std::vector<float>();
    std::vector<float> recv(counts[rank_]);
    COHORT_RETURN_IF_ERROR(group_.Scatter(send.data(), recv.data(), counts, DataType::kF32, Root()).Wait());
    const size_t before = Before(counts, rank_);
    return Check(recv, 0, recv.size(), [&](size_t i) { return Value(Root(), before + i, call_.seed); });
  }

  absl::Status AllToAll() {
    const std::vector<float> send = Own(call_.count * size_);
    std::vector<float> recv(send.size());
    COHORT_RETURN_IF_ERROR(group_.AllToAll(send.data(), recv.data(), call_.count, DataType::kF32).Wait());
    return CheckExchange(recv, Counts(static_cast<size_t>(size_) * size_, call_.count));
  }

  absl::Status AllToAllV() {
    const Counts matrix = Matrix();
    const std::vector<float> send = Own(Total(Row(matrix)));
    std::vector<float> recv(Total(Column(matrix)));
    COHORT_RETURN_IF_ERROR(
        group_.AllToAllV(send.data(), Row(matrix), recv.data(), Column(matrix), DataType::kF32).Wait());
    return CheckExchange(recv, matrix);
  }

  absl::Status AllToAllMatrix() {
    const Counts matrix = Matrix();
    const std::vector<float> send = Own(Total(Row(matrix)));
    std::vector<float> recv(Total(Column(matrix)));
    COHORT_RETURN_IF_ERROR(group_.AllToAllMatrix(send.data(), recv.data(), matrix, DataType::kF32).Wait());
    return CheckExchange(recv, matrix);
  }

  absl::Status Barrier() { return group_.Barrier().Wait(); }

  absl::Status QuantizedAllReduce() {
    const std::vector<float> send(call_.count, Flat(rank_));
    std::vector<float> recv(send.size());
    COHORT_RETURN_IF_ERROR(
        comm::QuantizedAllReduce(group_, send.data(), recv.data(), send.size(), DataType::kF32, {}).Wait());
    return Check(
        recv, 0, recv.size(), [&](size_t) { return Sum(0); }, kQuantizedError);
  }

  absl::Status QuantizedReduceScatter() {
    const Counts counts = Uneven();
    const std::vector<float> send(Total(counts), Flat(rank_));
    std::vector<float> recv(counts[rank_]);
    COHORT_RETURN_IF_ERROR(
        comm::QuantizedReduceScatter(group_, send.data(), recv.data(), counts, DataType::kF32, {}).Wait());
    return Check(
        recv, 0, recv.size(), [&](size_t) { return Sum(0); }, kQuantizedError);
  }

  absl::Status QuantizedAllGather() {
    const Counts counts = Uneven();
    const std::vector<float> send(counts[rank_], Flat(rank_));
    std::vector<float> recv(Total(counts));
    COHORT_RETURN_IF_ERROR(
        comm::QuantizedAllGather(group_, send.data(), recv.data(), counts, DataType::kF32, {}).Wait());
    return CheckFlatParts(recv, counts);
  }

  absl::Status QuantizedAllToAll() {
    const std::vector<float> send(call_.count * size_, Flat(rank_));
    std::vector<float> recv(send.size());
    COHORT_RETURN_IF_ERROR(
        comm::QuantizedAllToAll(group_, send.data(), recv.data(), call_.count, DataType::kF32, {}).Wait());
    return CheckFlatParts(recv, Counts(size_, call_.count));
  }

  absl::Status QuantizedAllToAllV() {
    const Counts matrix = Matrix(), out = Row(matrix), in = Column(matrix);
    const std::vector<float> send(Total(out), Flat(rank_));
    std::vector<float> recv(Total(in));
    COHORT_RETURN_IF_ERROR(
        comm::QuantizedAllToAllV(group_, send.data(), out, recv.data(), in, DataType::kF32, {}).Wait());
    return CheckFlatParts(recv, in);
  }

 private:
  int Root() const { return static_cast<int>(call_.seed % static_cast<uint32_t>(size_)); }
  static size_t Total(const Counts& counts) {
    return std::accumulate(counts.begin(), counts.end(), size_t{0});
  }
  static size_t Before(const Counts& counts, int rank) {
    return std::accumulate(counts.begin(), counts.begin() + rank, size_t{0});
  }
  Counts Uneven() const {
    Counts counts(size_);
    for (int rank = 0; rank < size_; ++rank) counts[rank] = call_.count + rank % 3;
    return counts;
  }
  // [from * size + to]
  Counts Matrix() const {
    Counts counts;
    for (int from = 0; from < size_; ++from) {
      for (int to = 0; to < size_; ++to) {
        counts.push_back((call_.count + from * 3 + to * 5) % (call_.count + 2));
      }
    }
    return counts;
  }
  Counts Row(const Counts& matrix) const {
    return {matrix.begin() + rank_ * size_, matrix.begin() + (rank_ + 1) * size_};
  }
  Counts Column(const Counts& matrix) const {
    Counts column;
    for (int from = 0; from < size_; ++from) column.push_back(matrix[from * size_ + rank_]);
    return column;
  }

  std::vector<float> Own(size_t count) const {
    std::vector<float> data(count);
    for (size_t i = 0; i < count; ++i) data[i] = Value(rank_, i, call_.seed);
    return data;
  }
  float Sum(size_t index) const {
    float sum = 0;
    for (int rank = 0; rank < size_; ++rank) sum += Value(rank, index, call_.seed);
    return sum;
  }
  float Flat(int rank) const { return Value(rank, 0, call_.seed); }

  template <typename Wanted>
  absl::Status Check(const std::vector<float>& data, size_t from, size_t count, const Wanted& wanted,
                     float error = 0) const {
    for (size_t i = 0; i < count; ++i) {
      const float want = wanted(i), got = data[from + i];
      // Also where it is not a number.
      if (std::fabs(got - want) <= error * want) continue;
      return absl::DataLossError(absl::StrFormat("%s of about %d elements a rank: element %d is %g, not %g",
                                                 FaultCallName(call_.kind), call_.count, from + i, got,
                                                 want));
    }
    return absl::OkStatus();
  }
  absl::Status CheckParts(const std::vector<float>& data, const Counts& counts) const {
    for (int peer = 0; peer < size_; ++peer) {
      COHORT_RETURN_IF_ERROR(Check(data, Before(counts, peer), counts[peer],
                                   [&](size_t i) { return Value(peer, i, call_.seed); }));
    }
    return absl::OkStatus();
  }
  absl::Status CheckFlatParts(const std::vector<float>& data, const Counts& counts) const {
    for (int peer = 0; peer < size_; ++peer) {
      COHORT_RETURN_IF_ERROR(Check(
          data, Before(counts, peer), counts[peer], [&](size_t) { return Flat(peer); }, kQuantizedError));
    }
    return absl::OkStatus();
  }
  absl::Status CheckExchange(const std::vector<float>& data, const Counts& matrix) const {
    size_t at = 0;
    for (int peer = 0; peer < size_; ++peer) {
      const size_t count = matrix[peer * size_ + rank_];
      const size_t before =
          std::accumulate(matrix.begin() + peer * size_, matrix.begin() + peer * size_ + rank_, size_t{0});
      COHORT_RETURN_IF_ERROR(
          Check(data, at, count, [&](size_t i) { return Value(peer, before + i, call_.seed); }));
      at += count;
    }
    return absl::OkStatus();
  }

  Communicator& group_;
  const FaultCall call_;
  const int size_, rank_;
};

struct Kind {
  const char* name;
  absl::Status (Trial::*run)();
};

constexpr Kind kKinds[] = {
    {"all-reduce", &Trial::AllReduce},
    {"reduce-scatter", &Trial::ReduceScatter},
    {"all-gather", &Trial::AllGather},
    {"broadcast", &Trial::Broadcast},
    {"reduce", &Trial::Reduce},
    {"gather", &Trial::Gather},
    {"scatter", &Trial::Scatter},
    {"all-to-all", &Trial::AllToAll},
    {"all-to-all-v", &Trial::AllToAllV},
    {"all-to-all-matrix", &Trial::AllToAllMatrix},
    {"barrier", &Trial::Barrier},
    {"quantized-all-reduce", &Trial::QuantizedAllReduce},
    {"quantized-reduce-scatter", &Trial::QuantizedReduceScatter},
    {"quantized-all-gather", &Trial::QuantizedAllGather},
    {"quantized-all-to-all", &Trial::QuantizedAllToAll},
    {"quantized-all-to-all-v", &Trial::QuantizedAllToAllV},
};

}  // namespace

int NumFaultCalls() { return static_cast<int>(std::size(kKinds)); }
const char* FaultCallName(int kind) { return kKinds[kind].name; }

absl::Status CallAndCheck(Communicator& group, const FaultCall& call) {
  Trial trial(group, call);
  return (trial.*kKinds[call.kind].run)();
}

}  // namespace cohort::tools
