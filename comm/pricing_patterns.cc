// The patterns that algorithms are made of: who sends what to whom, and what waits for what.
#include <algorithm>
#include <bit>
#include <cstdint>

#include "comm/algorithms/halving.h"
#include "comm/pricing_clock.h"
#include "comm/pricing_holdings.h"

namespace cohort::comm::pricing {

using algorithms::Rounds;

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

void Finish(Clock& clock, const Teams& teams, const std::vector<Times>& own, Times* times) {
  for (size_t i = 0; i < teams.size(); ++i) {
    for (size_t m = 0; m < teams[i].size(); ++m) {
      Moment& time = (*times)[teams[i][m]];
      time = clock.Later(time, own[i][m]);
    }
  }
}

// Calls visit(begin, end) for what travels as one message of `number` parts from the place `first` of member m on:
// parts lie side by side but for the last and the first one, or, where `at` says where they begin, as that says.
template <typename Visit>
void ForMessages(const Parts& parts, const std::vector<size_t>* at, int m, int first, int number,
                 const Visit& visit) {
  const int p = parts.number();
  if (at == nullptr) {
    const int wrap = first + algorithms::Modulo(p - m - first, p);  // the place of part 0, from `first` on
    if (wrap > first && wrap < first + number) {
      visit(first, wrap);
      visit(wrap, first + number);
    } else {
      visit(first, first + number);
    }
    return;
  }
  int begin = first;
  size_t end_of_joined = SIZE_MAX;
  for (int place = first; place < first + number; ++place) {
    const int part = algorithms::Modulo(m + place, p);
    if (parts.At(part) == 0) continue;
    if (end_of_joined != (*at)[part] && end_of_joined != SIZE_MAX) {
      visit(begin, place);
      begin = place;
    }
    end_of_joined = (*at)[part] + parts.At(part);
  }
  if (end_of_joined != SIZE_MAX) visit(begin, first + number);
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
      for (const int rank : teams[i]) (*times)[rank] = Later((*times)[rank], own[rank]);
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
        // The last sum goes to its place, and waits for no buffer.
        const bool waits = coupled && s > 1 && s + 1 < rounds * (p - 1);
        const Times before = now[piece][i], before_sent = sent[piece][i];
        for (int m = 0; m < p; ++m) {
          const int to = (m + 1) % p;
          const size_t part = algorithms::Part(parts[i].At(m - s - begin), pieces, piece).count;
          const Moment came = Message(team[m], team[to], part, before[m], waits ? before_sent[to] : Moment{},
                                      coupled ? &sent[piece][i][m] : nullptr);
          now[piece][i][to] = Later(before[to], came);
        }
      }
    }
  }
  for (const auto& own : now) Finish(*this, teams, own, times);
}

void Clock::Pairwise(const Teams& teams, absl::Span<const Parts> parts, bool to_owner, bool chained,
                     Times* times, const Arrived& arrived, const std::vector<std::vector<Times>>* ready) {
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
  std::vector<Times> turn;  // when a member may send to another host again
  for (const Team& team : teams) turn.emplace_back(team.size());
  for (int distance = 1; distance < longest; ++distance) {
    for (size_t i = 0; i < teams.size(); ++i) {
      const Team& team = teams[i];
      const int p = static_cast<int>(team.size());
      if (distance >= p) continue;
      for (int m = 0; m < p; ++m) {
        const int to = (m + distance) % p;
        const size_t count = parts[i].At(to_owner ? to : m);
        const bool near = machine_.hosts->SameHost(team[m], team[to]);
        const Moment has = ready == nullptr ? start[i][m] : (*ready)[i][m][to_owner ? to : m];
        Moment awaited;
        if (chained) awaited = distance > 1 || ready == nullptr ? now[i][to] : (*ready)[i][to][to];
        const Moment came = Message(team[m], team[to], count, near ? has : Later(has, turn[i][m]), awaited,
                                    near || count == 0 ? nullptr : &turn[i][m]);
        if (arrived != nullptr) arrived(team[to], count, came);
        now[i][to] = Later(now[i][to], came);
      }
    }
  }
  Finish(*this, teams, now, times);
  Follows(Follow::kChain);
}

void Clock::Halving(const Teams& teams, absl::Span<const Parts> parts, Times* times) {
  Follows(Follow::kRounds);
  std::vector<Times> now = OfTeams(teams, *times);
  if (!ordered()) {
    // What is sent waits for the sums of the round before, or, where these are of other parts, of the one before that.
    std::vector<Times> before = now, earlier = now;
    for (int round = 1, left = 1; left > 0; ++round) {
      left = 0;
      for (size_t i = 0; i < teams.size(); ++i) {
        const int p = static_cast<int>(teams[i].size());
        const Rounds rounds(p);
        if (round > rounds.last()) continue;
        ++left;
        const bool waits = round < 2 || rounds.skip(round) < rounds.skip(round - 2) - rounds.skip(round - 1);
        earlier[i].swap(before[i]);
        before[i] = now[i];
        const Times& has = waits ? before[i] : earlier[i];
        for (int m = 0; m < p; ++m) {
          const auto [to, first, number] = rounds.Halving(m, round);
          now[i][to] =
              Message(teams[i][m], teams[i][to], parts[i].Range(first, number), has[m], before[i][to]);
        }
      }
    }
    Finish(*this, teams, now, times);
    Follows(Follow::kChain);
    return;
  }
  std::vector<Holdings> added;
  for (const Times& start : now) {
    added.emplace_back(start, 2 * Rounds(static_cast<int>(start.size())).last() + 2);
  }
  for (int round = 1, left = 1; left > 0; ++round) {
    left = 0;
    for (size_t i = 0; i < teams.size(); ++i) {
      const int p = static_cast<int>(teams[i].size());
      const Rounds rounds(p);
      if (round > rounds.last()) continue;
      ++left;
      for (int m = 0; m < p; ++m) {
        const auto [to, first, number] = rounds.Halving(m, round);
        // Places as the receiver counts them.
        const int shift = rounds.Doubling(to, round).first - to - (first - m);
        ForMessages(parts[i], nullptr, m, first - m, number, [&](int begin, int end) {
          const int at = begin + shift, at_end = end + shift;
          const Moment came =
              Message(teams[i][m], teams[i][to], parts[i].Range(m + begin, end - begin),
                      added[i].Since(*this, m, begin, end), added[i].Since(*this, to, at, at_end));
          added[i].Add(to, at, at_end, came);
        });
      }
      added[i].EndRound();
    }
  }
  for (size_t i = 0; i < teams.size(); ++i) {
    for (size_t m = 0; m < now[i].size(); ++m) now[i][m] = added[i].Since(*this, static_cast<int>(m), 0, 1);
  }
  Finish(*this, teams, now, times);
  Follows(Follow::kChain);
}

void Clock::Doubling(const Teams& teams, absl::Span<const Parts> parts,
                     absl::Span<const std::vector<size_t>> places, Times* times, const Arrived& arrived) {
  Follows(Follow::kRounds);
  std::vector<Times> now = OfTeams(teams, *times);
  if (!ordered()) {
    // As above. Messages of one part each would be too many: those of a round are one.
    std::vector<Times> before = now, earlier = now;
    int most = 0;
    for (const Team& team : teams) most = std::max(most, Rounds(static_cast<int>(team.size())).last());
    for (int round = most; round > 0; --round) {
      for (size_t i = 0; i < teams.size(); ++i) {
        const int p = static_cast<int>(teams[i].size());
        const Rounds rounds(p);
        if (round > rounds.last()) continue;
        const bool waits =
            round == rounds.last() || rounds.skip(round + 1) < rounds.skip(round - 1) - rounds.skip(round);
        earlier[i].swap(before[i]);
        before[i] = now[i];
        const Times& has = waits ? before[i] : earlier[i];
        for (int m = 0; m < p; ++m) {
          const auto [to, first, number] = rounds.Doubling(m, round);
          const size_t count = parts[i].Range(first, number);
          const Moment came = Message(teams[i][m], teams[i][to], count, has[m]);
          if (arrived != nullptr) arrived(teams[i][to], count, came);
          if (!places.empty()) price_.messages += number - 1, price_.remote_messages += number - 1;
          now[i][to] = Later(now[i][to], came);
        }
      }
    }
    Finish(*this, teams, now, times);
    Follows(Follow::kChain);
    return;
  }
  const bool apart = !places.empty();
  std::vector<Holdings> held;
  int most = 0;
  for (const Times& start : now) {
    const int rounds = Rounds(static_cast<int>(start.size())).last();
    held.emplace_back(start, apart ? start.size() : 2 * static_cast<size_t>(rounds) + 2);
    most = std::max(most, rounds);
  }
  for (int round = most; round > 0; --round) {
    for (size_t i = 0; i < teams.size(); ++i) {
      const int p = static_cast<int>(teams[i].size());
      const Rounds rounds(p);
      if (round > rounds.last()) continue;
      for (int m = 0; m < p; ++m) {
        const auto [to, first, number] = rounds.Doubling(m, round);
        // Places as the receiver counts them.
        const int shift = rounds.Halving(to, round).first - to - (first - m);
        ForMessages(parts[i], apart ? &places[i] : nullptr, m, first - m, number, [&](int begin, int end) {
          const size_t count = parts[i].Range(m + begin, end - begin);
          if (count == 0) return;
          const Moment came = Message(teams[i][m], teams[i][to], count, held[i].Since(*this, m, begin, end));
          if (arrived != nullptr) arrived(teams[i][to], count, came);
          held[i].Add(to, begin + shift, end + shift, came);
        });
      }
      held[i].EndRound();
    }
  }
  for (size_t i = 0; i < teams.size(); ++i) {
    for (size_t m = 0; m < now[i].size(); ++m) {
      const int p = static_cast<int>(now[i].size());
      now[i][m] = held[i].Since(*this, static_cast<int>(m), -p, p);
    }
  }
  Finish(*this, teams, now, times);
  Follows(Follow::kChain);
}

void Clock::DoublingSum(const Teams& teams, absl::Span<const size_t> counts, Times* times) {
  Follows(Follow::kRounds);
  std::vector<Times> now = OfTeams(teams, *times);
  const auto core_of = [](const Team& team) { return static_cast<int>(std::bit_floor(team.size())); };
  for (size_t i = 0; i < teams.size(); ++i) {
    const int folded = static_cast<int>(teams[i].size()) - core_of(teams[i]);
    for (int pair = 0; pair < folded; ++pair) {
      const Moment came = Message(teams[i][2 * pair], teams[i][2 * pair + 1], counts[i], now[i][2 * pair],
                                  now[i][2 * pair + 1]);
      now[i][2 * pair + 1] = Later(now[i][2 * pair + 1], came);
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
        const Moment came = Message(teams[i][from], teams[i][to], counts[i], before[from], before[to]);
        now[i][to] = Later(now[i][to], came);
      }
    }
  }
  for (size_t i = 0; i < teams.size(); ++i) {
    const int folded = static_cast<int>(teams[i].size()) - core_of(teams[i]);
    for (int pair = 0; pair < folded; ++pair) {
      now[i][2 * pair] = Message(teams[i][2 * pair + 1], teams[i][2 * pair], counts[i], now[i][2 * pair + 1]);
    }
  }
  Finish(*this, teams, now, times);
  Follows(Follow::kChain);
}

}  // namespace cohort::comm::pricing
