#include "comm/tuner/measure.h"

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/tuner/policy.h"

namespace cohort::comm {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// What the members of a team do as often as the first of them asks for it.
struct Asked {
  enum What : uint64_t { kNothing, kExchange, kStream } what = kNothing;
  uint64_t times = 0, messages = 0, bytes = 0;
};

// Messages go as those of collectives do: nobody confirms them, and, for latency and gap, all ranks send at once, to
// different ones as far as there are. Where ranks are more than processors, that is what a message costs.
class TeamMeasurement {
 public:
  TeamMeasurement(GroupCommunicator& group, const std::vector<int>& ranks)
      : group_(group),
        ranks_(ranks),
        own_(static_cast<int>(std::find(ranks.begin(), ranks.end(), group.rank()) - ranks.begin())) {}

  absl::StatusOr<MeasuredLink> Measure() {
    // What a large message takes more than a small one: long enough that the link's buffers do not count, if that does
    // not take long.
    COHORT_ASSIGN_OR_RETURN(const double trip, Streamed(1));
    double streamed = 0;
    size_t bytes = policy::kMeasuredFirstBytes;
    for (;; bytes *= 4) {
      COHORT_ASSIGN_OR_RETURN(streamed, Streamed(bytes));
      streamed -= trip;
      if (bytes >= policy::kMeasuredMostBytes || 4 * streamed > policy::kMeasuredSeconds) break;
    }
    // After that, when all have long begun.
    COHORT_ASSIGN_OR_RETURN(const double one, Exchanged(1));
    COHORT_ASSIGN_OR_RETURN(const double several, Exchanged(policy::kMeasuredBurst));
    COHORT_RETURN_IF_ERROR(Ask({}));
    if (streamed <= 0) {
      return absl::UnavailableError(
          absl::StrFormat("%d bytes took no longer than one: others use the machine", bytes));
    }
    // So many messages take as many gaps, and the latency.
    MeasuredLink link;
    link.gap = std::clamp((several - one) / static_cast<double>(policy::kMeasuredBurst - 1), 0.0,
                          policy::kMostGap * one);
    link.latency = one - link.gap;
    link.seconds_per_byte = streamed / static_cast<double>(bytes);
    return link;
  }

  // The others' side.
  absl::Status Answer() {
    for (;;) {
      Asked asked;
      COHORT_RETURN_IF_ERROR(group_.RecvPlain(&asked, sizeof asked, ranks_[0]).Wait());
      if (asked.what == Asked::kNothing) return absl::OkStatus();
      Reserve(asked.bytes);
      for (uint64_t i = 0; i < asked.times; ++i) {
        if (asked.what == Asked::kExchange) {
          COHORT_RETURN_IF_ERROR(Exchange(asked.messages));
        } else if (own_ == 1) {
          COHORT_RETURN_IF_ERROR(group_.RecvPlain(buffer_.data(), asked.bytes, ranks_[0]).Wait());
          COHORT_RETURN_IF_ERROR(group_.SendPlain(buffer_.data(), 1, ranks_[0]).Wait());
        }
      }
    }
  }

 private:
  void Reserve(size_t bytes) {
    if (buffer_.size() < bytes) buffer_.resize(bytes);
  }

  absl::Status Ask(Asked asked) {
    for (size_t i = 1; i < ranks_.size(); ++i) {
      COHORT_RETURN_IF_ERROR(group_.SendPlain(&asked, sizeof asked, ranks_[i]).Wait());
    }
    return absl::OkStatus();
  }

  // Everybody sends so many messages of a byte, the first one to the next member, the others to those behind it in turn.
  absl::Status Exchange(uint64_t messages) {
    const int size = static_cast<int>(ranks_.size());
    std::vector<Work> works;
    for (uint64_t m = 0; m < messages; ++m) {
      const int distance = 1 + static_cast<int>(m) % (size - 1);
      works.push_back(group_.RecvPlain(buffer_.data(), 1, ranks_[(own_ + size - distance) % size]));
      works.push_back(group_.SendPlain(buffer_.data() + 1, 1, ranks_[(own_ + distance) % size]));
    }
    // For all of them, as all have the buffer.
    absl::Status status;
    for (const Work& work : works) status.Update(work.Wait());
    return status;
  }

  // What such an exchange takes: the mean of several, as ranks are not in step. One finds its messages there and the next
  // waits for two: where ranks share a processor, which changes hands then, and where a link is long. Of such means the
  // first quartile, as others use the machine, too; where exchanges take long, one mean of a few.
  absl::StatusOr<double> Exchanged(uint64_t messages) {
    constexpr uint64_t kMeans = policy::kMeasuredMeans, kFew = 4;
    static_assert(policy::kMeasuredExchanges % 2 == 0 && kFew % 2 == 0);
    // The first one connects, and has the asking in it.
    COHORT_ASSIGN_OR_RETURN(const std::vector<double> few, Means(2, kFew, messages));
    const double fit = policy::kMeasuredSeconds / (few[1] * kMeans);
    if (fit < kFew) return few[1];
    const uint64_t times = std::min(static_cast<uint64_t>(fit), policy::kMeasuredExchanges) / 2 * 2;
    COHORT_ASSIGN_OR_RETURN(std::vector<double> means, Means(kMeans, times, messages));
    std::nth_element(means.begin(), means.begin() + kMeans / 4, means.end());
    return means[kMeans / 4];
  }

  // Of so many times each, without a pause between them: the first one has the asking in it.
  absl::StatusOr<std::vector<double>> Means(uint64_t number, uint64_t times, uint64_t messages) {
    COHORT_RETURN_IF_ERROR(Ask({Asked::kExchange, number * times, messages, 0}));
    std::vector<double> means(number);
    for (double& mean : means) {
      const double begin = Now();
      for (uint64_t i = 0; i < times; ++i) COHORT_RETURN_IF_ERROR(Exchange(messages));
      mean = (Now() - begin) / static_cast<double>(times);
    }
    return means;
  }

  // The least that so long a message to the next member and its answer take.
  absl::StatusOr<double> Streamed(size_t bytes) {
    constexpr uint64_t kTimes = 3;
    Reserve(bytes);
    COHORT_RETURN_IF_ERROR(Ask({Asked::kStream, kTimes, 1, bytes}));
    double least = 1e9;
    for (uint64_t i = 0; i < kTimes; ++i) {
      const double begin = Now();
      COHORT_RETURN_IF_ERROR(group_.SendPlain(buffer_.data(), bytes, ranks_[1]).Wait());
      COHORT_RETURN_IF_ERROR(group_.RecvPlain(buffer_.data(), 1, ranks_[1]).Wait());
      least = std::min(least, Now() - begin);
    }
    return least;
  }

  GroupCommunicator& group_;
  const std::vector<int>& ranks_;
  const int own_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(64);
};

}  // namespace

std::vector<MeasuredTeam> TeamsToMeasure(const HostMap& hosts) {
  std::vector<MeasuredTeam> teams;
  const int number = std::min(hosts.num_hosts(), policy::kMeasuredHosts);
  for (int host = 0; host < number && number > 1; ++host) {
    // One host alone would be left over: it is the last team's fifth.
    if (host % policy::kMeasuredTeam == 0 && host + 1 < number) teams.emplace_back();
    // Their last ranks, so that first ones are free for pairs inside.
    teams.back().ranks.push_back(hosts.ranks_on(host).back());
  }
  for (const Distance distance : {Distance::kNuma, Distance::kSocket, Distance::kHost}) {
    bool found = false;
    for (int host = 0; host < hosts.num_hosts() && !found; ++host) {
      const auto ranks = hosts.ranks_on(host);
      for (size_t i = 1; i < ranks.size() && !found; ++i) {
        for (size_t j = 0; j < i && !found; ++j) {
          found = hosts.Between(ranks[j], ranks[i]) == distance;
          if (found) teams.push_back({{ranks[j], ranks[i]}, distance});
        }
      }
    }
  }
  return teams;
}

std::vector<MeasuredLink> MeasureLinks(GroupCommunicator& group, const std::vector<MeasuredTeam>& teams) {
  std::vector<MeasuredLink> links;
  if (!group.Barrier().Wait().ok()) return links;  // all at once
  for (const MeasuredTeam& team : teams) {
    if (std::find(team.ranks.begin(), team.ranks.end(), group.rank()) == team.ranks.end()) continue;
    TeamMeasurement measurement(group, team.ranks);
    if (group.rank() == team.ranks[0]) {
      absl::StatusOr<MeasuredLink> link = measurement.Measure();
      if (!link.ok()) continue;
      link->distance = team.distance;
      links.push_back(*link);
    } else {
      (void)measurement.Answer();  // the measurer hears of it
    }
  }
  return links;
}

}  // namespace cohort::comm
