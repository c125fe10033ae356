// Prices of algorithms that go by hosts.
#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "comm/algorithms/policy.h"
#include "comm/algorithms/team.h"
#include "comm/pricing_rows.h"

namespace cohort::comm::pricing {

using algorithms::Lanes;
using algorithms::Part;

// ---- One rank of every host ----

// The number of a host's ranks that the leader serves one after the other.
void HierarchicalBroadcast(Pricer& p) {
  const size_t pieces = p.Pieces(p.count);
  Team leaders;
  for (int host = 0; host < p.hosts().num_hosts(); ++host) leaders.push_back(p.Leader(host));
  Times times = p.clock.Start();
  for (size_t piece = 0; piece < pieces; ++piece) {
    const size_t count = Part(p.count, pieces, piece).count;
    times[0] = {};
    if (pieces == 1)
      Down(
          p, leaders, [&](int, int) { return count; }, &times);
    for (size_t i = 0; i + 1 < leaders.size() && pieces > 1; ++i) {
      times[leaders[i + 1]] = p.clock.Message(leaders[i], leaders[i + 1], count, times[leaders[i]]);
    }
    for (const Team& team : p.Hosts()) {
      for (size_t i = 1; i < team.size(); ++i) p.clock.Message(team[0], team[i], count, times[team[0]]);
    }
  }
}

void HierarchicalReduce(Pricer& p) {
  const size_t pieces = p.Pieces(p.count);
  Team leaders;
  for (int host = 0; host < p.hosts().num_hosts(); ++host) leaders.push_back(p.Leader(host));
  const Teams teams = p.Hosts();
  // Every sum inside hosts first: they do not wait for what crosses.
  std::vector<Times> inside(pieces, p.clock.Start());
  for (size_t piece = 0; piece < pieces; ++piece) {
    const size_t count = Part(p.count, pieces, piece).count;
    for (const Team& team : teams) {
      Moment& sum = inside[piece][team[0]];
      for (size_t i = 1; i < team.size(); ++i) sum = p.clock.Message(team[i], team[0], count, {}, sum);
    }
  }
  for (size_t piece = 0; piece < pieces; ++piece) {
    const size_t count = Part(p.count, pieces, piece).count;
    Times& times = inside[piece];
    if (pieces == 1)
      Up(
          p, leaders, true, [&](int, int) { return count; }, &times);
    for (size_t i = leaders.size() - 1; i > 0 && pieces > 1; --i) {
      times[leaders[i - 1]] =
          p.clock.Message(leaders[i], leaders[i - 1], count, times[leaders[i]], times[leaders[i - 1]]);
    }
  }
}

void HierarchicalGatherOrScatter(Pricer& p) {
  const bool gathers = p.call.operation == Operation::kGather;
  const Parts parts(p.count, p.size());
  for (const Team& team : p.Hosts()) {
    if (team[0] == 0) continue;
    size_t all = 0;
    for (const int rank : team) all += parts.At(rank);
    Moment now = gathers ? Moment{p.clock.CopyTime(parts.At(team[0]))} : p.clock.Message(0, team[0], all, {});
    for (size_t i = 1; i < team.size(); ++i) {
      const size_t count = parts.At(team[i]);
      if (gathers) now = p.clock.Later(now, p.clock.Message(team[i], team[0], count, {}));
      if (!gathers) p.clock.Message(team[0], team[i], count, now);
    }
    if (gathers) p.clock.Message(team[0], 0, all, now);
  }
  for (const int rank : p.hosts().ranks_on(0)) {
    if (rank != 0) p.clock.Message(gathers ? rank : 0, gathers ? 0 : rank, parts.At(rank), {});
  }
}

// ---- Lanes (algorithms/team.h) ----

enum class Across { kHalving, kDirect, kSum, kRing };

// Calls visit(first, number): one lane after the other, as schedules have them, where it counts who asks for a link
// first; else all at once, round by round, as their links are taken.
template <typename Visit>
void ForLanes(const Pricer& p, size_t lanes, const Visit& visit) {
  if (!p.clock.ordered()) {
    visit(0, lanes);
    return;
  }
  for (size_t lane = 0; lane < lanes; ++lane) visit(lane, 1);
}

// By host: how much of a buffer that is cut into lanes each of its ranks owns.
std::vector<Parts> OfPlaces(const Teams& hosts, const Lanes& lanes, const Parts& by_lane) {
  std::vector<Parts> of_places;
  for (int host = 0; host < lanes.num_hosts(); ++host) {
    std::vector<size_t> cuts = {0};
    for (size_t place = 0; place < hosts[host].size(); ++place) {
      const auto owned = lanes.OwnedBy(host, static_cast<int>(place));
      const int first = static_cast<int>(owned.begin), number = static_cast<int>(owned.count);
      cuts.push_back(cuts.back() + (number == 0 ? 0 : by_lane.Range(first, number)));
    }
    of_places.emplace_back(std::move(cuts));
  }
  return of_places;
}

void LanesAllReduce(Pricer& p, Across how) {
  const size_t pieces = p.Pieces(p.count);
  p.clock.InPieces(pieces);
  const Teams hosts = p.Hosts();
  std::vector<Times> times(pieces, p.clock.Start());
  // By piece and first lane: when ranks had the lane's part of the sum, after which its way back begins.
  std::vector<std::map<size_t, Times>> summed(pieces);
  // A stage takes a few pieces at a time, the next when a rank has the last message of one (Flow::Enter); what is inside
  // hosts does not wait for what crosses.
  // Where hosts halve or exchange directly, the way back is a stage of its own.
  const bool two_ways = how == Across::kHalving || how == Across::kDirect;
  const int way_back = two_ways ? 2 : -1, last_stage = two_ways ? 3 : 2;
  for (int stage = 0; stage <= last_stage; ++stage) {
    std::vector<Times> last;  // by piece
    for (size_t piece = 0; piece < pieces; ++piece) {
      last.push_back(piece == 0 ? p.clock.Start() : last.back());
      p.clock.NoteLast(&last.back());
      const auto held = [&](int rank) {
        return piece < policy::kPiecesInStage ? Moment{} : last[piece - policy::kPiecesInStage][rank];
      };
      for (int rank = 0; rank < p.size() && piece >= policy::kPiecesInStage; ++rank) {
        times[piece][rank] = p.clock.Later(times[piece][rank], held(rank));
      }
      const size_t count = Part(p.count, pieces, piece).count;
      const Lanes lanes(p.call, count);
      const Parts by_lane(count, lanes.num_lanes());
      if (stage == 1 || stage == way_back) {
        Teams across;
        std::vector<Parts> parts;
        std::vector<size_t> counts;
        for (int lane = 0; lane < lanes.num_lanes(); ++lane) {
          across.push_back(lanes.Across(lane).ranks);
          counts.push_back(by_lane.At(lane));
          parts.emplace_back(counts.back(), lanes.num_hosts());
        }
        if (lanes.num_hosts() == 1) continue;
        const Times start = times[piece];
        ForLanes(p, across.size(), [&](size_t first, size_t number) {
          const Teams teams(across.begin() + first, across.begin() + first + number);
          const auto of_teams = absl::MakeConstSpan(parts).subspan(first, number);
          Times own = start;
          if (stage == way_back) {
            own = summed[piece][first];
            for (const Team& team : teams) {
              for (const int rank : team) own[rank] = p.clock.Later(own[rank], held(rank));
            }
          }
          if (how == Across::kHalving && stage == 1) {
            p.clock.Halving(teams, of_teams, &own);
          } else if (how == Across::kHalving) {
            p.clock.Doubling(teams, of_teams, {}, &own);
          } else if (how == Across::kDirect) {
            p.clock.Pairwise(teams, of_teams, stage == 1, stage == 1, &own);
          } else if (how == Across::kSum) {
            p.clock.DoublingSum(teams, absl::MakeConstSpan(counts).subspan(first, number), &own);
          } else {
            p.clock.Ring(teams, of_teams, 2, 1, Clock::RingOf::kSums, false, &own);
          }
          for (const Team& team : teams) {
            for (const int rank : team) times[piece][rank] = p.clock.Later(times[piece][rank], own[rank]);
          }
          if (two_ways && stage == 1) summed[piece][first] = std::move(own);
        });
      } else if (how == Across::kRing) {
        p.clock.Ring(hosts, OfPlaces(hosts, lanes, by_lane), 1, 1,
                     stage == 0 ? Clock::RingOf::kSums : Clock::RingOf::kParts, false, &times[piece]);
      } else {
        p.clock.Pairwise(hosts, OfPlaces(hosts, lanes, by_lane), stage == 0, stage == 0, &times[piece]);
      }
    }
    p.clock.NoteLast(nullptr);
  }
}

void Hierarchical(Pricer& p) { LanesAllReduce(p, Across::kHalving); }
void HierarchicalDirect(Pricer& p) { LanesAllReduce(p, Across::kDirect); }
void Nvrar(Pricer& p) { LanesAllReduce(p, Across::kSum); }
void HoRing(Pricer& p) { LanesAllReduce(p, Across::kRing); }

// The parts that each lane carries, by host, and where they begin in the buffer of all.
struct LaneParts {
  Teams across;
  std::vector<Parts> parts;
  std::vector<std::vector<size_t>> places;

  LaneParts(const Pricer& p, const Lanes& lanes) {
    const Parts all(p.count, p.size());
    for (int lane = 0; lane < lanes.num_lanes(); ++lane) {
      across.push_back(lanes.Across(lane).ranks);
      std::vector<size_t> cuts = {0};
      std::vector<size_t>& begins = places.emplace_back();
      for (const int block : lanes.Blocks(lane)) {
        cuts.push_back(cuts.back() + (block < 0 ? 0 : all.At(block)));
        begins.push_back(block < 0 ? 0 : all.Range(0, block));
      }
      parts.emplace_back(std::move(cuts));
    }
  }
};

namespace {

void LanesReduceScatter(Pricer& p, Across how) {
  const Lanes lanes(p.call);
  const LaneParts lane_parts(p, lanes);
  const Teams hosts = p.Hosts();
  Times times = p.clock.Start();
  // By lane, host and part: since when the host's sum of it is there.
  std::vector<std::vector<Times>> ready(lanes.num_lanes(), std::vector<Times>(lanes.num_hosts()));
  for (int lane = 0; lane < lanes.num_lanes(); ++lane) {
    for (int host = 0; host < lanes.num_hosts(); ++host) {
      const int owner = lane_parts.across[lane][host], g = static_cast<int>(hosts[host].size());
      const int place = p.hosts().local_rank(owner);
      const Parts& parts = lane_parts.parts[lane];
      // Part by part, each in the order of distance. Where messages are not ordered, their sum is what counts.
      Moment all = times[owner];
      for (int part = 0; part < (p.clock.ordered() ? parts.number() : 1); ++part) {
        Moment sum;
        if (g == 1) sum = p.clock.Copy(owner, p.clock.ordered() ? parts.At(part) : parts.total(), {});
        for (int distance = 1; distance < g; ++distance) {
          const int from = hosts[host][algorithms::Modulo(place - distance, g)];
          const size_t count = p.clock.ordered() ? parts.At(part) : parts.total();
          sum = p.clock.Later(sum, p.clock.Message(from, owner, count, {}, sum));
        }
        if (p.clock.ordered()) ready[lane][host].push_back(sum);
        all = p.clock.Later(all, sum);
      }
      times[owner] = all;
    }
  }
  if (lanes.num_hosts() == 1) return;
  ForLanes(p, lane_parts.across.size(), [&](size_t first, size_t number) {
    const Teams teams(lane_parts.across.begin() + first, lane_parts.across.begin() + first + number);
    const auto parts = absl::MakeConstSpan(lane_parts.parts).subspan(first, number);
    const std::vector<std::vector<Times>> own(ready.begin() + first, ready.begin() + first + number);
    Times end = times;
    if (how == Across::kHalving) p.clock.Halving(teams, parts, &end);
    if (how == Across::kDirect)
      p.clock.Pairwise(teams, parts, true, true, &end, nullptr, p.clock.ordered() ? &own : nullptr);
  });
}

void LanesAllGather(Pricer& p, Across how) {
  const Lanes lanes(p.call);
  const LaneParts lane_parts(p, lanes);
  const Teams hosts = p.Hosts();
  Times times = p.clock.Start();
  // What comes to a rank is read by the others of its host at once.
  struct Came {
    int rank;
    size_t count;
    Moment when;
  };
  std::vector<Came> all;
  for (int lane = 0; lane < lanes.num_lanes(); ++lane) {
    for (int host = 0; host < lanes.num_hosts(); ++host) {
      all.push_back({lane_parts.across[lane][host], lane_parts.parts[lane].At(host), {}});
    }
  }
  const Clock::Arrived arrived = [&](int rank, size_t count, Moment when) {
    all.push_back({rank, count, when});
  };
  if (how == Across::kHalving || p.clock.ordered()) {
    ForLanes(p, lane_parts.across.size(), [&](size_t first, size_t number) {
      const Teams teams(lane_parts.across.begin() + first, lane_parts.across.begin() + first + number);
      const auto parts = absl::MakeConstSpan(lane_parts.parts).subspan(first, number);
      Times end = times;
      if (how == Across::kHalving) {
        p.clock.Doubling(teams, parts, absl::MakeConstSpan(lane_parts.places).subspan(first, number), &end,
                         arrived);
      } else {
        p.clock.Pairwise(teams, parts, false, false, &end, arrived);
      }
    });
  } else {
    p.clock.Pairwise(lane_parts.across, lane_parts.parts, false, false, &times);
    for (int lane = 0; lane < lanes.num_lanes(); ++lane) {
      const Parts& parts = lane_parts.parts[lane];
      for (int host = 0; host < lanes.num_hosts(); ++host) {
        const int owner = lane_parts.across[lane][host];
        all.push_back({owner, parts.total() - parts.At(host), times[owner]});
      }
    }
  }
  if (!p.clock.ordered()) {
    std::stable_sort(all.begin(), all.end(),
                     [](const Came& a, const Came& b) { return a.when.at < b.when.at; });
  }
  for (const Came& came : all) {
    for (const int other : hosts[p.hosts().host_of(came.rank)]) {
      if (other != came.rank) p.clock.Message(came.rank, other, came.count, came.when);
    }
  }
}

}  // namespace

void HierarchicalReduceScatter(Pricer& p) { LanesReduceScatter(p, Across::kHalving); }
void HierarchicalDirectReduceScatter(Pricer& p) { LanesReduceScatter(p, Across::kDirect); }
void HierarchicalAllGather(Pricer& p) { LanesAllGather(p, Across::kHalving); }
void HierarchicalDirectAllGather(Pricer& p) { LanesAllGather(p, Across::kDirect); }

// ---- All-to-all by pairs of hosts ----

void HierarchicalAllToAll(Pricer& p) {
  const size_t block = p.count / p.size();
  const int num_hosts = p.hosts().num_hosts();
  const Teams hosts = p.Hosts();
  // Other hosts take turns on the ranks of a host; those at a distance have the same turn everywhere. Where pairs are
  // too many to replay, some distances stand for all.
  const size_t most = static_cast<size_t>(p.hosts().most_on_a_host());
  const size_t per_distance = 2 * static_cast<size_t>(num_hosts) * most + num_hosts;
  const size_t distances = static_cast<size_t>(num_hosts - 1);
  const size_t shown =
      std::min(distances, std::max<size_t>(2 * most, p.clock.replayed() / per_distance / most * most));
  // Messages that do not leave whole keep their links waiting as rounds do: of four hosts of two ranks at 1 Gbit/s, those of
  // 60 KB took 1.02 times as long as their bytes, those of 64 to 256 KB 1.20 to 1.28.
  p.clock.Follows(Clock::Follow::kRounds);
  // Three stages, each with all pairs: what comes in early is not kept waiting by what goes out late.
  std::vector<Moment> ready(shown * num_hosts);
  for (int stage = 0; stage < 3; ++stage) {
    for (size_t i = 0; i < shown; ++i) {
      for (int host = 0; host < num_hosts; ++host) {
        const Team& from = hosts[host];
        const Team& to = hosts[(host + 1 + i) % num_hosts];
        const int gatherer = from[i % from.size()], scatterer = to[(i + to.size() / 2) % to.size()];
        Moment& now = ready[i * num_hosts + host];
        for (size_t m = 0; m < from.size() && stage == 0; ++m) {
          Moment came;
          if (from[m] != gatherer) came = p.clock.Message(from[m], gatherer, block * to.size(), {});
          // What a rank brings is sorted by destination; where that is not ordered, while more comes, but for a block.
          if (p.clock.ordered()) came = p.clock.Copy(gatherer, block * to.size(), came);
          now = p.clock.Later(now, came);
        }
        if (stage == 0 && !p.clock.ordered()) now = p.clock.After(now, p.clock.CopyTime(block));
        if (stage == 1) now = p.clock.Message(gatherer, scatterer, block * from.size() * to.size(), now);
        for (size_t m = 0; m < to.size() && stage == 2; ++m) {
          if (to[m] != scatterer) p.clock.Message(scatterer, to[m], block * from.size(), now);
          if (to[m] == scatterer && p.clock.ordered()) p.clock.Copy(scatterer, block * from.size(), now);
        }
      }
    }
  }
  Times times = p.clock.Start();
  std::vector<Parts> parts;
  for (const Team& team : hosts) parts.emplace_back(block * team.size(), static_cast<int>(team.size()));
  if (shown == distances) p.clock.Pairwise(hosts, parts, true, false, &times);
  if (shown < distances) p.clock.Stretch(static_cast<double>(distances) / static_cast<double>(shown));
}

}  // namespace cohort::comm::pricing
