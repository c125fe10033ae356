#include "comm/tuner/measure.h"

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "comm/check.h"
#include "comm/policy.h"

namespace cohort::comm {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class PairMeasurement {
 public:
  explicit PairMeasurement(Communicator& group) : group_(group), peer_(1 - group.rank()) {}

  absl::StatusOr<MeasuredLink> Measure() {
    double least = 1e9;
    for (int i = 0; i < policy::kMeasuredRoundTrips; ++i) {
      const double begin = Now();
      COHORT_RETURN_IF_ERROR(Send(1));
      COHORT_RETURN_IF_ERROR(Recv(1));
      if (i > 0) least = std::min(least, Now() - begin);  // the first one may connect
    }
    COHORT_ASSIGN_OR_RETURN(MeasuredLink link, Exchanges());
    // Long enough that the link's buffers do not count, if that does not take long.
    double seconds = 0;
    size_t bytes = policy::kMeasuredFirstBytes;
    for (;; bytes *= 4) {
      COHORT_ASSIGN_OR_RETURN(seconds, Stream(bytes, least));
      if (bytes >= policy::kMeasuredMostBytes || 4 * seconds > policy::kMeasuredSeconds) break;
    }
    link.seconds_per_byte = seconds / static_cast<double>(bytes);
    COHORT_RETURN_IF_ERROR(Ask(0));
    return link;
  }

  // The other side.
  absl::Status Answer() {
    for (int i = 0; i < policy::kMeasuredRoundTrips; ++i) {
      COHORT_RETURN_IF_ERROR(Recv(1));
      COHORT_RETURN_IF_ERROR(Send(1));
    }
    COHORT_RETURN_IF_ERROR(Exchanges().status());
    for (;;) {
      uint64_t bytes = 0;
      COHORT_RETURN_IF_ERROR(group_.Recv(&bytes, 1, DataType::kI64, peer_).Wait());
      if (bytes == 0) return absl::OkStatus();
      if (buffer_.size() < bytes) buffer_.resize(bytes);
      COHORT_RETURN_IF_ERROR(Recv(bytes));
      COHORT_RETURN_IF_ERROR(Send(1));
    }
  }

 private:
  absl::Status Send(size_t bytes) { return group_.Send(buffer_.data(), bytes, DataType::kU8, peer_).Wait(); }
  absl::Status Recv(size_t bytes) { return group_.Recv(buffer_.data(), bytes, DataType::kU8, peer_).Wait(); }
  absl::Status Ask(uint64_t bytes) { return group_.Send(&bytes, 1, DataType::kI64, peer_).Wait(); }

  // A barrier of two is a message each way. One after the other takes latency and gap each, several at once the latency
  // once and the gap of each. The least of some turns: what is more is somebody else's.
  absl::StatusOr<MeasuredLink> Exchanges() {
    double one = 1e9, burst = 1e9;
    for (int turn = 0; turn < policy::kMeasuredTurns; ++turn) {
      double begin = Now();
      for (int i = 0; i < policy::kMeasuredExchanges; ++i) COHORT_RETURN_IF_ERROR(group_.Barrier().Wait());
      one = std::min(one, (Now() - begin) / policy::kMeasuredExchanges);
      begin = Now();
      std::vector<Work> works;
      for (int m = 0; m < policy::kMeasuredAtOnce; ++m) works.push_back(group_.Barrier());
      for (const Work& work : works) COHORT_RETURN_IF_ERROR(work.Wait());
      burst = std::min(burst, Now() - begin);
    }
    MeasuredLink link;
    link.gap = std::clamp((burst - one) / (policy::kMeasuredAtOnce - 1), 1e-9, one);
    link.latency = std::max(one - link.gap, 1e-9);
    return link;
  }

  // How long it takes until so many bytes have come, without the round trip of the first and of the answer.
  absl::StatusOr<double> Stream(size_t bytes, double round_trip) {
    if (buffer_.size() < bytes) buffer_.resize(bytes);
    double least = 1e9;
    for (int i = 0; i < 2; ++i) {
      COHORT_RETURN_IF_ERROR(Ask(bytes));
      const double begin = Now();
      COHORT_RETURN_IF_ERROR(Send(bytes));
      COHORT_RETURN_IF_ERROR(Recv(1));
      least = std::min(least, Now() - begin);
    }
    return std::max(least - round_trip, 1e-9);
  }

  Communicator& group_;
  const int peer_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(64);
};

}  // namespace

std::vector<MeasuredPair> PairsToMeasure(const HostMap& hosts) {
  std::vector<MeasuredPair> pairs;
  const int most = 2 * policy::kMeasuredPairs;
  for (int host = 0; host + 1 < std::min(hosts.num_hosts(), most); host += 2) {
    // Their last ranks, so that first ones are free for pairs inside.
    pairs.push_back({hosts.ranks_on(host).back(), hosts.ranks_on(host + 1).back(), Distance::kRack});
  }
  for (const Distance distance : {Distance::kNuma, Distance::kSocket, Distance::kHost}) {
    bool found = false;
    for (int host = 0; host < hosts.num_hosts() && !found; ++host) {
      const auto ranks = hosts.ranks_on(host);
      for (size_t i = 1; i < ranks.size() && !found; ++i) {
        for (size_t j = 0; j < i && !found; ++j) {
          found = hosts.Between(ranks[j], ranks[i]) == distance;
          if (found) pairs.push_back({ranks[j], ranks[i], distance});
        }
      }
    }
  }
  return pairs;
}

absl::StatusOr<std::optional<MeasuredLink>> MeasurePair(Communicator& group) {
  PairMeasurement measurement(group);
  if (group.rank() == 0) return measurement.Measure();
  COHORT_RETURN_IF_ERROR(measurement.Answer());
  return std::nullopt;
}

}  // namespace cohort::comm
