#include "comm/algorithms/blocks.h"

#include <algorithm>
#include <bit>
#include <optional>

namespace cohort::comm::algorithms {
namespace {

// Calls visit(slice) for members first .. first + number - 1 round the team; neighbours that lie side by side
// in their buffer are one slice.
template <typename Visit>
void ForRange(absl::Span<const Slice> parts, int first, int number, const Visit& visit) {
  Slice joined;
  for (int i = 0; i < number; ++i) {
    const Slice& part = parts[Modulo(first + i, static_cast<int>(parts.size()))];
    if (part.count == 0) continue;
    if (joined.count > 0 && part.buffer == joined.buffer && part.offset == joined.offset + joined.count) {
      joined.count += part.count;
      continue;
    }
    if (joined.count > 0) visit(joined);
    joined = part;
  }
  if (joined.count > 0) visit(joined);
}

// p, ceil(p/2), ceil(p/4), …, 1.
std::vector<int> Skips(int size) {
  std::vector<int> skips = {size};
  while (skips.back() > 1) skips.push_back((skips.back() + 1) / 2);
  return skips;
}

}  // namespace

Cuts EqualCuts(size_t count, int parts) {
  Cuts cuts(parts + 1, count);
  for (int i = 0; i < parts; ++i) cuts[i] = Part(count, parts, i).begin;
  return cuts;
}

std::vector<Slice> Slices(const Slice& whole, const Cuts& cuts) {
  std::vector<Slice> slices;
  for (size_t m = 0; m + 1 < cuts.size(); ++m) slices.push_back(Member(whole, cuts, static_cast<int>(m)));
  return slices;
}

namespace {

// To the member `distance` on, in its turn.
void SendInTurn(Flow& flow, const Team& team, int distance, Slice source, std::optional<Turns>& turns) {
  const int peer = team.At(distance);
  const StepId sent = flow.Send(peer, source, turns ? turns->Before(peer) : kNoStep);
  if (turns && source.count > 0) turns->Note(peer, sent);
}

std::optional<Turns> TurnsOf(const Team& team, const HostMap* hosts) {
  if (hosts == nullptr) return std::nullopt;
  return Turns(*hosts, team.ranks[team.place]);
}

}  // namespace

void DirectReduceScatter(Flow& flow, const Team& team, const Cuts& cuts, Slice source, Slice result,
                         const HostMap* hosts) {
  const int p = team.size();
  std::optional<Turns> turns = TurnsOf(team, hosts);
  Slice sum = Member(source, cuts, team.place);
  if (p == 1) flow.Copy(sum, result);
  for (int distance = 1; distance < p; ++distance) {
    SendInTurn(flow, team, distance, Member(source, cuts, Modulo(team.place + distance, p)), turns);
    flow.RecvReduce(team.At(-distance), sum, result);
    sum = result;
  }
}

void RingReduceScatter(Flow& flow, const Team& team, const Cuts& cuts, Slice source, Slice work,
                       Slice result) {
  const int p = team.size();
  if (p == 1) flow.Copy(Member(source, cuts, 0), result);
  for (int s = 0; s + 1 < p; ++s) {
    const int out = Modulo(team.place - 1 - s, p), in = Modulo(team.place - 2 - s, p);
    flow.Send(team.At(1), Member(s == 0 ? source : work, cuts, out));
    flow.RecvReduce(team.At(-1), Member(source, cuts, in), s + 2 == p ? result : Member(work, cuts, in));
  }
}

// Träff, "Optimal, Non-pipelined Reduce-scatter and Allreduce Algorithms", 2024: recursive halving round a
// circle, for any p. With S the skip of the round before (p at first) and s = ceil(S/2), a member sends what
// it has for the members s .. S-1 places on to the one s places on, whose own place and those up to S-s-1 on
// they are. What is sent and what is added to never overlap. For powers of two: the rounds and bytes of
// recursive halving.
void HalvingReduceScatter(Flow& flow, const Team& team, const Cuts& cuts, Slice source, Slice work,
                          Slice result) {
  const int p = team.size();
  if (p == 1) {
    flow.Copy(Member(source, cuts, 0), result);
    return;
  }
  const std::vector<int> skips = Skips(p);
  // An odd one is in the middle: the first round neither sends nor adds to it.
  if (p % 2 == 1) {
    const int middle = Modulo(team.place + skips[1] - 1, p);
    flow.Copy(Member(source, cuts, middle), Member(work, cuts, middle));
  }
  const std::vector<Slice> brought = Slices(source, cuts);
  const std::vector<Slice> sums = Slices(work, cuts);
  for (size_t round = 1; round < skips.size(); ++round) {
    const int skip = skips[round], number = skips[round - 1] - skip;
    const std::vector<Slice>& from = round == 1 ? brought : sums;
    ForRange(from, team.place + skip, number, [&](const Slice& part) { flow.Send(team.At(skip), part); });
    if (round + 1 == skips.size()) {  // only the own part is left
      flow.RecvReduce(team.At(-skip), from[team.place], result);
      continue;
    }
    ForRange(from, team.place, number, [&](const Slice& part) {
      const size_t at = part.offset - (round == 1 ? source : work).offset;
      flow.RecvReduce(team.At(-skip), part, work.Part(at, part.count));
    });
  }
}

void DirectAllGather(Flow& flow, const Team& team, absl::Span<const Slice> parts, Slice own,
                     const HostMap* hosts) {
  const int p = team.size();
  std::optional<Turns> turns = TurnsOf(team, hosts);
  for (int distance = 1; distance < p; ++distance) {
    SendInTurn(flow, team, distance, own, turns);
    flow.Recv(team.At(-distance), parts[Modulo(team.place - distance, p)]);
  }
  // Last: it keeps nobody waiting.
  flow.Copy(own, parts[team.place]);
}

void RingAllGather(Flow& flow, const Team& team, absl::Span<const Slice> parts, Slice own) {
  const int p = team.size();
  for (int s = 0; s + 1 < p; ++s) {
    flow.Send(team.At(1), s == 0 ? own : parts[Modulo(team.place - s, p)]);
    flow.Recv(team.At(-1), parts[Modulo(team.place - s - 1, p)]);
  }
  flow.Copy(own, parts[team.place]);
}

void DoublingAllGather(Flow& flow, const Team& team, absl::Span<const Slice> parts, Slice own) {
  const std::vector<int> skips = Skips(team.size());
  if (skips.size() != 2) flow.Copy(own, parts[team.place]);
  for (size_t round = skips.size() - 1; round > 0; --round) {
    const int skip = skips[round], number = skips[round - 1] - skip;
    if (number == 1) {
      flow.Send(team.At(-skip), own);
    } else {
      ForRange(parts, team.place, number, [&](const Slice& part) { flow.Send(team.At(-skip), part); });
    }
    ForRange(parts, team.place + skip, number, [&](const Slice& part) { flow.Recv(team.At(skip), part); });
  }
  if (skips.size() == 2) flow.Copy(own, parts[team.place]);
}

namespace {

// The first ranks fold in pairs where the team is no power of two; the others and one of each pair are the
// core.
struct Fold {
  explicit Fold(const Team& team)
      : core(static_cast<int>(std::bit_floor(static_cast<unsigned>(team.size())))),
        folded(team.size() - core),
        in_pair(team.place < 2 * folded),
        outside(in_pair && team.place % 2 == 0),
        place(in_pair ? team.place / 2 : team.place - folded),
        rounds(std::countr_zero(static_cast<unsigned>(core))) {}

  int core, folded;
  bool in_pair, outside;
  int place, rounds;

  int MemberAt(int core_place) const {
    return core_place < folded ? 2 * core_place + 1 : core_place + folded;
  }
};

}  // namespace

int NumDoublingSums(const Team& team) {
  const Fold fold(team);
  return fold.outside ? 0 : fold.rounds + (fold.in_pair ? 1 : 0);
}

void RecursiveDoublingSum(Flow& flow, const Team& team, Slice source, Slice target, Slice spare) {
  const Fold fold(team);
  if (fold.outside) {
    flow.Send(team.At(1), source);
    flow.Recv(team.At(1), target);
    return;
  }
  int left = NumDoublingSums(team);
  if (left == 0) flow.Copy(source, target);
  Slice sum = source;
  const auto add = [&](int peer) {
    const Slice to = --left % 2 == 0 ? target : spare;
    flow.RecvReduce(peer, sum, to);
    sum = to;
  };
  if (fold.in_pair) add(team.At(-1));
  for (int round = 0; round < fold.rounds; ++round) {
    const int partner = team.ranks[fold.MemberAt(fold.place ^ (1 << round))];
    flow.Send(partner, sum);
    add(partner);
  }
  if (fold.in_pair) flow.Send(team.At(-1), target);
}

}  // namespace cohort::comm::algorithms
