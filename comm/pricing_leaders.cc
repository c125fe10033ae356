// Prices of algorithms in which one rank of every host does all that crosses (algorithms/*_leaders.cc).
#include <algorithm>
#include <functional>
#include <vector>

#include "comm/pricing_rows.h"

namespace cohort::comm::pricing {

namespace {

// Elements of the ranks of each host.
std::vector<size_t> ByHost(const Pricer& p, const Parts& parts) {
  std::vector<size_t> counts(p.hosts().num_hosts(), 0);
  for (int rank = 0; rank < p.size(); ++rank) counts[p.hosts().host_of(rank)] += parts.At(rank);
  return counts;
}

// Elements: in(rank) from a rank to its leader, across(from, to) between the leaders of two hosts, out(rank) from a
// leader to a rank. Where a leader copies, it packs what it sends to another leader and unpacks what comes from there,
// and in between copies own(host).
using Own = std::function<size_t(int host)>;
template <typename In, typename Across, typename Out>
void ThroughLeaders(Pricer& p, bool sums, const In& in, const Across& across, const Out& out,
                    const Own& own) {
  const Teams hosts = p.Hosts();
  const int num_hosts = p.hosts().num_hosts();
  Times brought(num_hosts);
  Times by_rank = p.clock.Start();
  for (int host = 0; host < num_hosts; ++host) {
    for (size_t i = 1; i < hosts[host].size(); ++i) {
      const int rank = hosts[host][i];
      by_rank[rank] = p.clock.Message(rank, hosts[host][0], in(rank), {}, sums ? brought[host] : Moment{});
      brought[host] = p.clock.Later(brought[host], by_rank[rank]);
    }
  }
  const auto copy = [&](int host, size_t count, Moment begin) {
    return own == nullptr ? begin : p.clock.Copy(hosts[host][0], count, begin);
  };
  // Of what each rank of the host has brought, when that is there; where messages are very many, when all is.
  const auto pack = [&](int host, size_t count) {
    if (own == nullptr) return brought[host];
    if (!p.clock.ordered()) return copy(host, count, brought[host]);
    Moment packed;
    for (const int rank : hosts[host])
      packed = p.clock.Later(packed, copy(host, count / hosts[host].size(), by_rank[rank]));
    return packed;
  };
  // Each sends to the next one first. They wait as in pricing_hosts.cc.
  p.clock.Follows(Clock::Follow::kRounds);
  Times have = brought;
  std::vector<Times> came;  // by distance, and host that gets it; where messages are ordered
  for (int distance = 1; distance < num_hosts; ++distance) {
    if (distance == 1 || p.clock.ordered()) came.emplace_back(num_hosts);
    for (int host = 0; host < num_hosts; ++host) {
      const int to = (host + distance) % num_hosts;
      const size_t count = across(host, to);
      came.back()[to] =
          p.clock.Message(p.Leader(host), p.Leader(to), count, pack(host, count), sums ? have[to] : Moment{});
      have[to] = p.clock.Later(have[to], came.back()[to]);
    }
  }
  for (int host = 0; host < num_hosts; ++host) {
    if (own != nullptr) {
      have[host] = p.clock.Later(have[host], pack(host, own(host)));
      for (size_t i = 0; i < came.size(); ++i) {  // else, while more arrives, but for what comes last
        const int from = algorithms::Modulo(host - static_cast<int>(i) - 1, num_hosts);
        have[host] = p.clock.ordered()
                         ? p.clock.Later(have[host], copy(host, across(from, host), came[i][host]))
                         : p.clock.After(have[host], p.clock.CopyTime(across(from, host)));
      }
    }
    for (size_t i = 1; i < hosts[host].size(); ++i) {
      p.clock.Message(hosts[host][0], hosts[host][i], out(hosts[host][i]), have[host]);
    }
  }
}

}  // namespace

void LeadersReduceScatter(Pricer& p) {
  const Parts parts(p.count, p.size());
  const std::vector<size_t> on = ByHost(p, parts);
  ThroughLeaders(
      p, true, [&](int) { return p.count; }, [&](int, int to) { return on[to]; },
      [&](int rank) { return parts.At(rank); }, nullptr);
}

void LeadersAllGather(Pricer& p) {
  const Parts parts(p.count, p.size());
  const std::vector<size_t> on = ByHost(p, parts);
  ThroughLeaders(
      p, false, [&](int rank) { return parts.At(rank); }, [&](int from, int) { return on[from]; },
      [&](int) { return p.count; }, nullptr);
}

void LeadersAllToAll(Pricer& p) {
  const size_t block = p.count / p.size(), row = block * p.size();
  const auto ranks = [&](int host) { return p.hosts().ranks_on(host).size(); };
  ThroughLeaders(
      p, false, [&](int) { return row; }, [&](int from, int to) { return block * ranks(from) * ranks(to); },
      [&](int) { return row; }, [&](int host) { return block * ranks(host) * ranks(host); });
}

}  // namespace cohort::comm::pricing
