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
  PairMeasurement(Communicator& group, const MeasuredPair& pair)
      : group_(group), peer_(group.rank() == pair.measurer ? pair.partner : pair.measurer) {}

  // The least of some round trips, halved: what is more is somebody else's.
  absl::StatusOr<MeasuredLink> Measure() {
    double least = 1e9;
    for (int i = 0; i < policy::kMeasuredRoundTrips; ++i) {
      const double begin = Now();
      COHORT_RETURN_IF_ERROR(Send(1));
      COHORT_RETURN_IF_ERROR(Recv(1));
      if (i > 0) least = std::min(least, Now() - begin);  // the first one may connect
    }
    MeasuredLink link;
    const double one_way = least / 2;
    COHORT_ASSIGN_OR_RETURN(const double burst, Stream(policy::kMeasuredBurst, 1, one_way));
    link.gap = std::min(burst / policy::kMeasuredBurst, policy::kMostGap * one_way);
    // A message takes its gap and the latency.
    link.latency = one_way - link.gap;
    // Long enough that the link's buffers do not count, if that does not take long.
    double seconds = 0;
    size_t bytes = policy::kMeasuredFirstBytes;
    for (;; bytes *= 4) {
      COHORT_ASSIGN_OR_RETURN(seconds, Stream(1, bytes, one_way));
      if (bytes >= policy::kMeasuredMostBytes || 4 * seconds > policy::kMeasuredSeconds) break;
    }
    link.seconds_per_byte = seconds / static_cast<double>(bytes);
    COHORT_RETURN_IF_ERROR(Ask({0, 0}));
    return link;
  }

  // The other side.
  absl::Status Answer() {
    for (int i = 0; i < policy::kMeasuredRoundTrips; ++i) {
      COHORT_RETURN_IF_ERROR(Recv(1));
      COHORT_RETURN_IF_ERROR(Send(1));
    }
    for (;;) {
      uint64_t asked[2] = {0, 0};
      COHORT_RETURN_IF_ERROR(group_.Recv(asked, 2, DataType::kI64, peer_).Wait());
      if (asked[0] == 0) return absl::OkStatus();
      std::vector<Work> works;
      if (buffer_.size() < asked[1]) buffer_.resize(asked[1]);
      for (uint64_t i = 0; i < asked[0]; ++i) {
        works.push_back(group_.Recv(buffer_.data(), asked[1], DataType::kU8, peer_));
      }
      for (const Work& work : works) COHORT_RETURN_IF_ERROR(work.Wait());
      COHORT_RETURN_IF_ERROR(Send(1));
    }
  }

 private:
  struct Asked {
    uint64_t messages, bytes;
  };

  absl::Status Send(size_t bytes) { return group_.Send(buffer_.data(), bytes, DataType::kU8, peer_).Wait(); }
  absl::Status Recv(size_t bytes) { return group_.Recv(buffer_.data(), bytes, DataType::kU8, peer_).Wait(); }
  absl::Status Ask(Asked asked) { return group_.Send(&asked, 2, DataType::kI64, peer_).Wait(); }

  // How long it takes until so many messages have come, without the latencies of the first and of the answer.
  absl::StatusOr<double> Stream(uint64_t messages, size_t bytes, double latency) {
    if (buffer_.size() < bytes) buffer_.resize(bytes);
    double least = 1e9;
    for (int i = 0; i < 2; ++i) {
      COHORT_RETURN_IF_ERROR(Ask({messages, bytes}));
      const double begin = Now();
      std::vector<Work> works;
      for (uint64_t m = 0; m < messages; ++m) {
        works.push_back(group_.Send(buffer_.data(), bytes, DataType::kU8, peer_));
      }
      for (const Work& work : works) COHORT_RETURN_IF_ERROR(work.Wait());
      COHORT_RETURN_IF_ERROR(Recv(1));
      least = std::min(least, Now() - begin);
    }
    return std::max(least - 2 * latency, 1e-9);
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

std::vector<MeasuredLink> MeasureLinks(Communicator& group, const std::vector<MeasuredPair>& pairs) {
  std::vector<MeasuredLink> links;
  for (const MeasuredPair& pair : pairs) {
    PairMeasurement measurement(group, pair);
    if (group.rank() == pair.measurer) {
      absl::StatusOr<MeasuredLink> link = measurement.Measure();
      if (!link.ok()) continue;
      link->distance = pair.distance;
      links.push_back(*link);
    } else if (group.rank() == pair.partner) {
      (void)measurement.Answer();  // the measurer hears of it
    }
  }
  return links;
}

}  // namespace cohort::comm
