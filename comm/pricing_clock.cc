#include "comm/pricing_clock.h"

#include <algorithm>
#include <bit>

namespace cohort::comm::pricing {

size_t Parts::Begin(int part) const {
  const auto at = static_cast<size_t>(part);
  return cuts_.empty() ? at * quotient_ + std::min(at, remainder_) : cuts_[at];  // as algorithms::Part
}

size_t Parts::Range(int first, int number) const {
  while (first < 0) first += parts_;
  while (first >= parts_) first -= parts_;
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

double LinkTimes::FreeBetween(double ready, double seconds) const {
  ready = std::max(ready, closed_until_);
  size_t next = taken_.size();  // the first that ends after `ready`
  while (next > 0 && taken_[next - 1].end > ready) --next;
  for (; next < taken_.size() && taken_[next].begin < ready + seconds; ++next) {
    ready = std::max(ready, taken_[next].end);
  }
  return ready;
}

void LinkTimes::Keep(double begin, double seconds, size_t kept) {
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

Clock::Clock(const Machine& machine, size_t element_bytes, size_t replayed, size_t ordered)
    : machine_(machine),
      size_(machine.hosts->size()),
      element_bytes_(static_cast<double>(element_bytes)),
      replayed_(replayed),
      ordered_(ordered),
      kept_(machine.hosts->size() <= kMostRanksWithGaps ? kKept : 0),
      links_(machine.rails == 0 ? size_ : static_cast<size_t>(machine.hosts->num_hosts()) * machine.rails),
      graph_(ordered == 0 ? 0 : (2 * kBetweenHosts + 1) * static_cast<size_t>(size_) + 2 * links_),
      drift_(machine.drift),
      host_bytes_(machine.hosts->num_hosts(), 0.0) {
  for (int d = 0; d < kNumDistances; ++d) {
    hops_[d] = {std::min(d, kBetweenHosts), machine.price[d].latency,
                machine.price[d].seconds_per_byte * element_bytes_, machine.gap[d]};
  }
  where_.reserve(size_);
  for (int rank = 0; rank < size_; ++rank) {
    const HostMap& hosts = *machine.hosts;
    const int host = hosts.host_of(rank);
    const int link =
        machine.rails == 0 ? rank : host * machine.rails + hosts.local_rank(rank) % machine.rails;
    where_.push_back({host, machine.hosts_per_rack == 0 ? 0 : host / machine.hosts_per_rack,
                      hosts.socket_of(rank), hosts.numa_of(rank), static_cast<uint32_t>(link)});
  }
  for (int level = 0; level < kNumLevels && ordered == 0; ++level) {
    out_[level].resize(level < kBetweenHosts ? size_ : links_);
    in_[level].resize(level < kBetweenHosts ? size_ : links_);
  }
}

// As Machine::Between.
Distance Clock::DistanceOf(int from, int to) const {
  const Where &a = where_[from], &b = where_[to];
  if (a.host != b.host) return a.rack == b.rack ? Distance::kRack : Distance::kBeyond;
  if (a.numa >= 0 && a.numa == b.numa) return Distance::kNuma;
  return a.socket >= 0 && a.socket == b.socket ? Distance::kSocket : Distance::kHost;
}

void Clock::Count(int from, Distance distance, double messages, double count) {
  price_.messages += messages;
  price_.bytes += count * element_bytes_;
  if (distance < Distance::kRack) return;
  price_.remote_messages += messages;
  price_.remote_bytes += count * element_bytes_;
  host_bytes_[where_[from].host] += count * element_bytes_;
}

Moment Clock::Message(int from, int to, size_t count, Moment sent, Moment awaited, Moment* left) {
  if (count > 0) {
    const Moment came = Transfer(from, to, count, sent, awaited, left);
    if (last_ != nullptr) (*last_)[to] = came;
    return came;
  }
  if (left != nullptr) *left = sent;
  return sent;
}

Moment Clock::Transfer(int from, int to, size_t count, Moment sent, Moment awaited, Moment* left) {
  const Distance distance = DistanceOf(from, to);
  const Hop& hop = Between(distance);
  const size_t link_out = Link(hop.level, from), link_in = Link(hop.level, to);
  const double stretch = hop.level == kBetweenHosts && !LeavesWhole(count) ? stretch_ : 1;
  const auto [busy, latency] = Occupies(hop, static_cast<double>(count) * hop.seconds_per_byte * stretch);
  Count(from, distance, 1, static_cast<double>(count));
  if (too_many()) return {};
  if (ordered()) {
    const size_t base = 2 * static_cast<size_t>(hop.level) * size_;
    return graph_.Message(base + link_out, base + (hop.level < kBetweenHosts ? size_ : links_) + link_in,
                          busy, latency, sent, awaited, left);
  }
  LinkTimes &out = out_[hop.level][link_out], &in = in_[hop.level][link_in];
  double begin = std::max(sent.at, awaited.at);
  for (double both = begin;; begin = both) {
    both = in.Free(out.Free(begin, busy), busy);
    if (both == begin) break;
  }
  out.Take(begin, busy, kept_);
  in.Take(begin, busy, kept_);
  const double end = begin + busy;
  if (left != nullptr) *left = {end};
  end_ = std::max(end_, end + latency);
  return {end + latency};
}

double Clock::CopyTime(size_t count) const {
  return static_cast<double>(count) * element_bytes_ * machine_.local_seconds_per_byte;
}

Moment Clock::Copy(int rank, size_t count, Moment begin) {
  if (count == 0 || too_many()) return begin;
  if (!ordered()) {
    if (local_free_.empty()) local_free_.resize(size_);
    return {local_free_[rank] = std::max(local_free_[rank], begin.at) + CopyTime(count)};
  }
  const size_t own = 2 * static_cast<size_t>(kBetweenHosts) * size_ + 2 * links_ + rank;
  return graph_.Message(own, own, CopyTime(count), 0, begin, {}, nullptr);
}

void Clock::Until(Moment moment) {
  if (ordered()) {
    graph_.Until(moment);
  } else {
    end_ = std::max(end_, moment.at);
  }
}

Moment Clock::Latest(absl::Span<const Moment> all) {
  Moment latest;
  for (const Moment& moment : all) latest = Later(latest, moment);
  return latest;
}

void Clock::Stretch(double factor) {
  factor_ *= factor;
  for (double* sum : {&price_.messages, &price_.bytes, &price_.remote_messages, &price_.remote_bytes})
    *sum *= factor;
  for (double& bytes : host_bytes_) bytes *= factor;
}

Price Clock::price() {
  Price price = price_;
  price.seconds = factor_ * (ordered() && !too_many() ? graph_.Run() : end_);
  price.host_bytes = *std::max_element(host_bytes_.begin(), host_bytes_.end());
  return price;
}

// ---- By the slowest member ----

void Clock::RingBySlowest(const Team& team, const Parts& parts, int rounds, size_t pieces, int sharing,
                          bool coupled, Times* times) {
  if (ordered()) {
    by_slowest_ = true;
    return;
  }
  const int p = static_cast<int>(team.size());
  if (p == 1) return;
  const double steps = static_cast<double>(rounds) * (p - 1);
  const double chunk = static_cast<double>(parts.total()) / p;
  double start = 0, round = 0, busiest = 0, slowest = 0, before = 0, pair = 0;
  for (int m = 0; m < p; ++m) {
    const int from = team[m], to = team[(m + 1) % p];
    const Hop& hop = Between(from, to);
    const Occupied piece = Occupies(hop, chunk / static_cast<double>(pieces) * hop.seconds_per_byte);
    const double busy = piece.busy * (hop.level == kBetweenHosts ? sharing : 1);
    start = std::max(start, (*times)[from].at);
    const double hand = piece.latency + busy;
    round += hand;
    pair = std::max(pair, before + hand);
    before = busy;
    busiest = std::max(busiest, busy * static_cast<double>(pieces));
    slowest = std::max(slowest, piece.latency);
    Count(from, DistanceOf(from, to), chunk > 0 ? steps * static_cast<double>(pieces) : 0, steps * chunk);
  }
  // A chunk has been round the ring after p steps; or the busiest link, which never rests, sets the pace.
  // Where coupled, a hop begins when the bytes of the one before have left.
  const double hand = std::max(round / p, coupled ? pair / 2 : 0);
  const double end = start + std::max(hand * steps, busiest * steps + slowest);
  for (const int rank : team) (*times)[rank] = {end};
  end_ = std::max(end_, end);
}

void Clock::PairwiseBySlowest(const Team& team, const Parts& parts, bool to_owner, bool chained,
                              Times* times) {
  if (ordered()) {
    by_slowest_ = true;
    return;
  }
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
  for (const int rank : team) start = std::max(start, (*times)[rank].at);
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
      const Hop& hop = Between(static_cast<Distance>(d));
      const Occupied each =
          count > 0 ? Occupies(hop, count * hop.seconds_per_byte) : Occupied{0, hop.latency};
      const double busy = number * each.busy;
      Count(rank, static_cast<Distance>(d), count > 0 ? number : 0, number * count);
      chain += number * each.latency + busy;
      if (d >= kBetweenHosts) link_busy[Link(kBetweenHosts, rank)] += busy;
      longest = std::max(longest, busy + each.latency);
    }
    if (chained) longest = std::max(longest, chain);
  }
  const double latency =
      machine_.price[machine_.hosts_per_rack == 0 ? kBetweenHosts : kBetweenHosts + 1].latency;
  for (const double busy : link_busy) longest = std::max(longest, busy > 0 ? busy + latency : 0);
  for (const int rank : team) (*times)[rank] = {start + longest};
  end_ = std::max(end_, start + longest);
}

}  // namespace cohort::comm::pricing
