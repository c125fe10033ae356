// Prices of algorithms in which one rank of every host does all that crosses (algorithms/*_leaders.cc).
#include <algorithm>
#include <functional>
#include <vector>

#include "comm/pricing_rows.h"

namespace cohort::comm::pricing {

namespace {

// Elements of the ranks of a host.
size_t On(const Pricer& p, const Parts& parts, int host) {
  size_t count = 0;
  for (const int rank : p.hosts().ranks_on(host)) count += parts.At(rank);
  return count;
}

// Elements: in(rank) from a rank to its leader, across(from, to) between the leaders of two hosts, out(rank) from a
// leader to a rank. A leader copies for_others(host) before it sends, own(host) while it waits, and from_others(host)
// then: while more arrives, but for what the last message brings.
struct Copied {
  std::function<size_t(int host)> for_others, own, from_others;
};
template <typename In, typename Across, typename Out>
void ThroughLeaders(Pricer& p, bool sums, const In& in, const Across& across, const Out& out,
                    const Copied& copied) {
  const Teams hosts = p.Hosts();
  const int num_hosts = p.hosts().num_hosts();
  Times brought(num_hosts);
  for (int host = 0; host < num_hosts; ++host) {
    for (size_t i = 1; i < hosts[host].size(); ++i) {
      const int rank = hosts[host][i];
      brought[host] = p.clock.Later(
          brought[host],
          p.clock.Message(rank, hosts[host][0], in(rank), {}, sums ? brought[host] : Moment{}));
    }
    brought[host] =
        p.clock.After(brought[host], p.clock.CopyTime(copied.for_others(host) / hosts[host].size()));
  }
  // Each sends to the next one first.
  p.clock.Follows(Clock::Follow::kTurns);
  Times have = brought;
  for (int distance = 1; distance < num_hosts; ++distance) {
    for (int host = 0; host < num_hosts; ++host) {
      const int to = (host + distance) % num_hosts;
      const Moment came = p.clock.Message(p.Leader(host), p.Leader(to), across(host, to), brought[host],
                                          sums ? have[to] : Moment{});
      have[to] = p.clock.Later(have[to], came);
    }
  }
  for (int host = 0; host < num_hosts; ++host) {
    const Moment own =
        p.clock.After(brought[host], p.clock.CopyTime(copied.own(host) / hosts[host].size()));
    have[host] = p.clock.After(p.clock.Later(have[host], own),
                               p.clock.CopyTime(copied.from_others(host) / std::max(1, num_hosts - 1)));
    for (size_t i = 1; i < hosts[host].size(); ++i) {
      p.clock.Message(hosts[host][0], hosts[host][i], out(hosts[host][i]), have[host]);
    }
  }
}

Copied NoCopies() {
  const auto none = [](int) { return size_t{0}; };
  return {none, none, none};
}

}  // namespace

void LeadersReduceScatter(Pricer& p) {
  const Parts parts(p.count, p.size());
  ThroughLeaders(
      p, true, [&](int) { return p.count; }, [&](int, int to) { return On(p, parts, to); },
      [&](int rank) { return parts.At(rank); }, NoCopies());
}

void LeadersAllGather(Pricer& p) {
  const Parts parts(p.count, p.size());
  ThroughLeaders(
      p, false, [&](int rank) { return parts.At(rank); }, [&](int from, int) { return On(p, parts, from); },
      [&](int) { return p.count; }, NoCopies());
}

void LeadersAllToAll(Pricer& p) {
  const size_t block = p.count / p.size(), row = block * p.size();
  const auto ranks = [&](int host) { return p.hosts().ranks_on(host).size(); };
  const auto own = [&](int host) { return block * ranks(host) * ranks(host); };
  const auto others = [&](int host) { return row * ranks(host) - own(host); };
  ThroughLeaders(
      p, false, [&](int) { return row; }, [&](int from, int to) { return block * ranks(from) * ranks(to); },
      [&](int) { return row; }, {others, own, others});
}

}  // namespace cohort::comm::pricing
