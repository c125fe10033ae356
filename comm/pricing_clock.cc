#include "comm/pricing_clock.h"

#include <algorithm>
#include <bit>

namespace cohort::comm::pricing {

size_t Parts::Begin(int part) const {
  return cuts_.empty() ? algorithms::Part(total_, parts_, part).begin : cuts_[part];
}

size_t Parts::Range(int first, int number) const {
  first = algorithms::Modulo(first, parts_);
  const auto begin = [&](int part) { return part == parts_ ? total_ : Begin(part); };
  if (first + number <= parts_) return begin(first + number) - begin(first);
  return total_ - begin(first) + begin(first + number - parts_);
}

size_t Parts::Longest() const {
  if (cuts_.empty()) return algorithms::Part(total_, parts_, 0).count;
  size_t longest = 0;
  for (size_t i = 0; i + 1 < cuts_.size(); ++i) longest = std::max(longest, cuts_[i + 1] - cuts_[i]);
  return longest;
}

double LinkTimes::Free(double ready, double seconds) const {
  ready = std::max(ready, closed_until_);
  size_t next = taken_.size();  // the first that ends after `ready`
  while (next > 0 && taken_[next - 1].end > ready) --next;
  for (; next < taken_.size() && taken_[next].begin < ready + seconds; ++next) {
    ready = std::max(ready, taken_[next].end);
  }
  return ready;
}

void LinkTimes::Take(double begin, double seconds, size_t kept) {
  if (seconds == 0) return;
  if (kept == 0) {
    closed_until_ = begin + seconds;
    return;
  }
  size_t next = taken_.size();
  while (next > 0 && taken_[next - 1].begin > begin) --next;
  const double end = begin + seconds;
  const bool after = next > 0 && taken_[next - 1].end == begin;
  const bool before = next < taken_.size() && taken_[next].begin == end;
  if (after && before) {
    taken_[next - 1].end = taken_[next].end;
    taken_.erase(taken_.begin() + static_cast<std::ptrdiff_t>(next));
  } else if (after) {
    taken_[next - 1].end = end;
  } else if (before) {
    taken_[next].begin = begin;
  } else {
    taken_.insert(taken_.begin() + static_cast<std::ptrdiff_t>(next), {begin, end});
  }
  if (taken_.size() <= kept) return;
  closed_until_ = taken_.front().end;
  taken_.erase(taken_.begin());
}

Clock::Clock(const Machine& machine, size_t element_bytes, size_t replayed)
    : machine_(machine),
      size_(machine.hosts->size()),
      element_bytes_(static_cast<double>(element_bytes)),
      replayed_(replayed),
      kept_(machine.hosts->size() <= kMostRanksWithGaps ? kKept : 0),
      drift_(machine.drift),
      host_bytes_(machine.hosts->num_hosts(), 0.0) {
  const size_t links =
      machine.rails == 0 ? size_ : static_cast<size_t>(machine.hosts->num_hosts()) * machine.rails;
  for (int level = 0; level < kNumLevels; ++level) {
    out_[level].resize(level < kBetweenHosts ? size_ : links);
    in_[level].resize(level < kBetweenHosts ? size_ : links);
  }
}

Clock::Hop Clock::Between(int from, int to) const {
  const Distance distance = machine_.Between(from, to);
  const LinkPrice& price = machine_.price[static_cast<int>(distance)];
  return {std::min(static_cast<int>(distance), kBetweenHosts), price.latency,
          price.seconds_per_byte * element_bytes_, machine_.gap[static_cast<int>(distance)]};
}

size_t Clock::Link(int level, int rank) const {
  if (level < kBetweenHosts || machine_.rails == 0) return rank;
  return static_cast<size_t>(machine_.hosts->host_of(rank)) * machine_.rails +
         machine_.hosts->local_rank(rank) % machine_.rails;
}

void Clock::Count(int from, Distance distance, double messages, double count) {
  price_.messages += messages;
  price_.bytes += count * element_bytes_;
  if (distance < Distance::kRack) return;
  price_.remote_messages += messages;
  price_.remote_bytes += count * element_bytes_;
  host_bytes_[machine_.hosts->host_of(from)] += count * element_bytes_;
}

double Clock::Message(int from, int to, size_t count, double sent, double awaited) {
  return count == 0 ? sent : Transfer(from, to, count, sent, awaited);
}

double Clock::Transfer(int from, int to, size_t count, double sent, double awaited) {
  const Hop hop = Between(from, to);
  LinkTimes &out = out_[hop.level][Link(hop.level, from)], &in = in_[hop.level][Link(hop.level, to)];
  const double busy = hop.gap + static_cast<double>(count) * hop.seconds_per_byte *
                                    (hop.level == kBetweenHosts ? stretch_ : 1);
  double begin = std::max(sent, awaited);
  for (double both = begin;; begin = both) {
    both = in.Free(out.Free(begin, busy), busy);
    if (both == begin) break;
  }
  out.Take(begin, busy, kept_);
  in.Take(begin, busy, kept_);
  const double end = begin + busy;
  Count(from, machine_.Between(from, to), 1, static_cast<double>(count));
  end_ = std::max(end_, end + hop.latency);
  return end + hop.latency;
}

double Clock::CopyTime(size_t count) const {
  return static_cast<double>(count) * element_bytes_ * machine_.local_seconds_per_byte;
}

void Clock::Stretch(double factor) {
  end_ *= factor;
  for (double* sum : {&price_.messages, &price_.bytes, &price_.remote_messages, &price_.remote_bytes})
    *sum *= factor;
  for (double& bytes : host_bytes_) bytes *= factor;
}

Price Clock::price() const {
  Price price = price_;
  price.seconds = end_;
  price.host_bytes = *std::max_element(host_bytes_.begin(), host_bytes_.end());
  return price;
}

namespace {

// The times of the members of each team: a rank may be in several.
std::vector<Times> OfTeams(const Teams& teams, const Times& times) {
  std::vector<Times> all;
  for (const Team& team : teams) {
    Times& own = all.emplace_back();
    for (const int rank : team) own.push_back(times[rank]);
  }
  return all;
}

void Finish(const Team& team, const Times& own, Times* times) {
  for (size_t m = 0; m < team.size(); ++m) (*times)[team[m]] = std::max((*times)[team[m]], own[m]);
}

void Finish(const Teams& teams, const std::vector<Times>& own, Times* times) {
  for (size_t i = 0; i < teams.size(); ++i) Finish(teams[i], own[i], times);
}

std::vector<int> Skips(int size) {
  std::vector<int> skips = {size};
  while (skips.back() > 1) skips.push_back((skips.back() + 1) / 2);
  return skips;
}

}  // namespace

void Clock::Ring(const Teams& teams, absl::Span<const Parts> parts, int rounds, size_t pieces, RingOf of,
                 bool coupled, Times* times) {
  const int begin = of == RingOf::kSums ? 1 : 0;
  size_t messages = 0;
  for (const Team& team : teams) messages += team.size() * (team.size() - 1) * rounds * pieces;
  if (messages > replayed_) {
    const Times before = *times;
    // Teams that share the links of a host.
    const int sharing =
        machine_.rails == 0 ? 1 : std::max(1, static_cast<int>(teams.size()) / machine_.rails);
    for (size_t i = 0; i < teams.size(); ++i) {
      Times own = before;
      RingBySlowest(teams[i], parts[i], rounds, pieces, sharing, coupled, &own);
      for (const int rank : teams[i]) (*times)[rank] = std::max((*times)[rank], own[rank]);
    }
    return;
  }
  // By piece; each goes round by itself.
  std::vector<std::vector<Times>> now(pieces, OfTeams(teams, *times));
  std::vector<std::vector<Times>> sent = now;  // when what a member sent last had left
  int longest = 0;
  for (const Team& team : teams) longest = std::max(longest, static_cast<int>(team.size()));
  for (int s = 0; s < rounds * (longest - 1); ++s) {
    for (size_t piece = 0; piece < pieces; ++piece) {
      for (size_t i = 0; i < teams.size(); ++i) {
        const Team& team = teams[i];
        const int p = static_cast<int>(team.size());
        if (s >= rounds * (p - 1)) continue;
        const Times before = now[piece][i], before_sent = sent[piece][i];
        for (int m = 0; m < p; ++m) {
          const int to = (m + 1) % p;
          const size_t part = algorithms::Part(parts[i].At(m - s - begin), pieces, piece).count;
          const double came =
              Message(team[m], team[to], part, before[m], coupled && s > 1 ? before_sent[to] : 0);
          now[piece][i][to] = std::max(before[to], came);
          sent[piece][i][m] = came - Between(team[m], team[to]).latency;
        }
      }
    }
  }
  for (const auto& own : now) Finish(teams, own, times);
}

void Clock::RingBySlowest(const Team& team, const Parts& parts, int rounds, size_t pieces, int sharing,
                          bool coupled, Times* times) {
  const int p = static_cast<int>(team.size());
  if (p == 1) return;
  const double steps = static_cast<double>(rounds) * (p - 1);
  const double chunk = static_cast<double>(parts.total()) / p;
  double start = 0, round = 0, busiest = 0, slowest = 0, before = 0, pair = 0;
  for (int m = 0; m < p; ++m) {
    const int from = team[m], to = team[(m + 1) % p];
    const Hop hop = Between(from, to);
    const double busy = (chunk * hop.seconds_per_byte + static_cast<double>(pieces) * hop.gap) *
                        (hop.level == kBetweenHosts ? sharing : 1);
    start = std::max(start, (*times)[from]);
    const double hand = hop.latency + busy / static_cast<double>(pieces);
    round += hand;
    pair = std::max(pair, before + hand);
    before = busy / static_cast<double>(pieces);
    busiest = std::max(busiest, busy);
    slowest = std::max(slowest, hop.latency);
    Count(from, machine_.Between(from, to), chunk > 0 ? steps * static_cast<double>(pieces) : 0,
          steps * chunk);
  }
  // A chunk has been round the ring after p steps; or the busiest link, which never rests, sets the pace.
  // Where coupled, a hop begins when the bytes of the one before have left.
  const double hand = std::max(round / p, coupled ? pair / 2 : 0);
  const double end = start + std::max(hand * steps, busiest * steps + slowest);
  for (const int rank : team) (*times)[rank] = end;
  end_ = std::max(end_, end);
}

void Clock::Pairwise(const Teams& teams, absl::Span<const Parts> parts, bool to_owner, bool chained,
                     Times* times) {
  size_t messages = 0;
  int longest = 0;
  for (const Team& team : teams) {
    messages += team.size() * team.size();
    longest = std::max(longest, static_cast<int>(team.size()));
  }
  if (messages > replayed_) {
    for (size_t i = 0; i < teams.size(); ++i) {
      PairwiseBySlowest(teams[i], parts[i], to_owner, chained, times);
    }
    return;
  }
  Follows(Follow::kTurns);
  const std::vector<Times> start = OfTeams(teams, *times);
  std::vector<Times> now = start;
  for (int distance = 1; distance < longest; ++distance) {
    for (size_t i = 0; i < teams.size(); ++i) {
      const int p = static_cast<int>(teams[i].size());
      if (distance >= p) continue;
      for (int m = 0; m < p; ++m) {
        const int to = (m + distance) % p;
        const double awaited = chained ? now[i][to] : 0;
        const double came =
            Message(teams[i][m], teams[i][to], parts[i].At(to_owner ? to : m), start[i][m], awaited);
        now[i][to] = std::max(now[i][to], came);
      }
    }
  }
  Finish(teams, now, times);
  Follows(Follow::kChain);
}

void Clock::PairwiseBySlowest(const Team& team, const Parts& parts, bool to_owner, bool chained,
                              Times* times) {
  const int p = static_cast<int>(team.size());
  const double count = static_cast<double>(parts.total()) / p;
  const HostMap& hosts = *machine_.hosts;
  // How many members are how near to a rank.
  std::vector<int> on_host(hosts.num_hosts(), 0), in_rack(hosts.num_hosts(), 0);
  const auto rack = [&](int host) {
    return machine_.hosts_per_rack == 0 ? 0 : host / machine_.hosts_per_rack;
  };
  for (const int rank : team) {
    ++on_host[hosts.host_of(rank)];
    ++in_rack[rack(hosts.host_of(rank))];
  }
  double start = 0, longest = 0;
  std::vector<double> link_busy(out_[kBetweenHosts].size(), 0.0);
  for (const int rank : team) start = std::max(start, (*times)[rank]);
  for (const int rank : team) {
    const int host = hosts.host_of(rank);
    int near[kNumDistances] = {0, 0, on_host[host], in_rack[rack(host)], p};
    for (const int other : hosts.ranks_on(host)) {  // teams are whole hosts, or have one rank of each
      if (on_host[host] != static_cast<int>(hosts.ranks_on(host).size())) break;
      near[0] += hosts.Between(rank, other) == Distance::kNuma && other != rank;
      near[1] += hosts.Between(rank, other) <= Distance::kSocket && other != rank;
    }
    for (int d = 2; d < kNumDistances; ++d) --near[d];  // not itself
    double chain = 0;
    for (int d = 0; d < kNumDistances; ++d) {
      const int number = near[d] - (d == 0 ? 0 : near[d - 1]);
      if (number <= 0) continue;
      const LinkPrice& price = machine_.price[d];
      const double busy =
          number * (count * element_bytes_ * price.seconds_per_byte + (count > 0 ? machine_.gap[d] : 0));
      Count(rank, static_cast<Distance>(d), count > 0 ? number : 0, number * count);
      chain += number * price.latency + busy;
      if (d >= kBetweenHosts) link_busy[Link(kBetweenHosts, rank)] += busy;
      longest = std::max(longest, busy + price.latency);
    }
    if (chained) longest = std::max(longest, chain);
  }
  const double latency =
      machine_.price[machine_.hosts_per_rack == 0 ? kBetweenHosts : kBetweenHosts + 1].latency;
  for (const double busy : link_busy) longest = std::max(longest, busy > 0 ? busy + latency : 0);
  for (const int rank : team) (*times)[rank] = start + longest;
  end_ = std::max(end_, start + longest);
}

void Clock::Halving(const Teams& teams, absl::Span<const Parts> parts, Times* times) {
  Follows(Follow::kRounds);
  std::vector<Times> now = OfTeams(teams, *times);
  for (size_t round = 1, left = 1; left > 0; ++round) {
    left = 0;
    for (size_t i = 0; i < teams.size(); ++i) {
      const int p = static_cast<int>(teams[i].size());
      const std::vector<int> skips = Skips(p);
      if (round >= skips.size()) continue;
      ++left;
      const int skip = skips[round], number = skips[round - 1] - skip;
      const Times before = now[i];
      for (int m = 0; m < p; ++m) {
        const int to = (m + skip) % p;
        const double came =
            Message(teams[i][m], teams[i][to], parts[i].Range(m + skip, number), before[m], before[to]);
        now[i][to] = std::max(now[i][to], came);
      }
    }
  }
  Finish(teams, now, times);
  Follows(Follow::kChain);
}

void Clock::Doubling(const Teams& teams, absl::Span<const Parts> parts, bool apart, Times* times,
                     const Arrived& arrived) {
  Follows(Follow::kRounds);
  std::vector<Times> now = OfTeams(teams, *times);
  size_t most = 0;
  for (const Team& team : teams) most = std::max(most, Skips(static_cast<int>(team.size())).size());
  for (size_t back = most; back > 1; --back) {
    for (size_t i = 0; i < teams.size(); ++i) {
      const int p = static_cast<int>(teams[i].size());
      const std::vector<int> skips = Skips(p);
      if (back > skips.size()) continue;
      const int skip = skips[back - 1], number = skips[back - 2] - skip;
      const Times before = now[i];
      for (int m = 0; m < p; ++m) {
        const int to = algorithms::Modulo(m - skip, p);
        const double came = Message(teams[i][m], teams[i][to], parts[i].Range(m, number), before[m]);
        if (arrived != nullptr) arrived(teams[i][to], parts[i].Range(m, number), came);
        if (apart && number > 1) price_.messages += number - 1, price_.remote_messages += number - 1;
        now[i][to] = std::max(now[i][to], came);
      }
    }
  }
  Finish(teams, now, times);
  Follows(Follow::kChain);
}

void Clock::DoublingSum(const Teams& teams, absl::Span<const size_t> counts, Times* times) {
  Follows(Follow::kRounds);
  std::vector<Times> now = OfTeams(teams, *times);
  const auto core_of = [](const Team& team) { return static_cast<int>(std::bit_floor(team.size())); };
  for (size_t i = 0; i < teams.size(); ++i) {
    const int folded = static_cast<int>(teams[i].size()) - core_of(teams[i]);
    for (int pair = 0; pair < folded; ++pair) {
      const double came = Message(teams[i][2 * pair], teams[i][2 * pair + 1], counts[i], now[i][2 * pair]);
      now[i][2 * pair + 1] = std::max(now[i][2 * pair + 1], came);
    }
  }
  for (int bit = 1, left = 1; left > 0; bit *= 2) {
    left = 0;
    for (size_t i = 0; i < teams.size(); ++i) {
      const int core = core_of(teams[i]), folded = static_cast<int>(teams[i].size()) - core;
      if (bit >= core) continue;
      ++left;
      const auto member = [&](int place) { return place < folded ? 2 * place + 1 : place + folded; };
      const Times before = now[i];
      for (int place = 0; place < core; ++place) {
        const int from = member(place), to = member(place ^ bit);
        const double came = Message(teams[i][from], teams[i][to], counts[i], before[from], before[to]);
        now[i][to] = std::max(now[i][to], came);
      }
    }
  }
  for (size_t i = 0; i < teams.size(); ++i) {
    const int folded = static_cast<int>(teams[i].size()) - core_of(teams[i]);
    for (int pair = 0; pair < folded; ++pair) {
      now[i][2 * pair] = Message(teams[i][2 * pair + 1], teams[i][2 * pair], counts[i], now[i][2 * pair + 1]);
    }
  }
  Finish(teams, now, times);
  Follows(Follow::kChain);
}

}  // namespace cohort::comm::pricing
