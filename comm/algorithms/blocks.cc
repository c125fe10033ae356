#include "comm/algorithms/blocks.h"

#include <algorithm>
#include <bit>
#include <optional>

#include "comm/algorithms/halving.h"

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

void HalvingReduceScatter(Flow& flow, const Team& team, const Cuts& cuts, Slice source, Slice work,
                          Slice result) {
  const int p = team.size();
  if (p == 1) {
    flow.Copy(Member(source, cuts, 0), result);
    return;
  }
  const Rounds rounds(p);
  // An odd one is in the middle: the first round neither sends nor adds to it.
  if (p % 2 == 1) {
    const int middle = Modulo(team.place + rounds.skip(1) - 1, p);
    flow.Copy(Member(source, cuts, middle), Member(work, cuts, middle));
  }
  const std::vector<Slice> brought = Slices(source, cuts);
  const std::vector<Slice> sums = Slices(work, cuts);
  for (int round = 1; round <= rounds.last(); ++round) {
    const Rounds::Sent sent = rounds.Halving(team.place, round);
    const Rounds::Sent back = rounds.Doubling(team.place, round);
    const int sender = team.ranks[back.to];
    const std::vector<Slice>& from = round == 1 ? brought : sums;
    ForRange(from, sent.first, sent.number, [&](const Slice& part) { flow.Send(team.ranks[sent.to], part); });
    if (round == rounds.last()) {  // only the own part is left
      flow.RecvReduce(sender, from[team.place], result);
      continue;
    }
    ForRange(from, back.first, back.number, [&](const Slice& part) {
      const size_t at = part.offset - (round == 1 ? source : work).offset;
      flow.RecvReduce(sender, part, work.Part(at, part.count));
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
  const Rounds rounds(team.size());
  if (rounds.last() != 1) flow.Copy(own, parts[team.place]);
  for (int round = rounds.last(); round > 0; --round) {
    const Rounds::Sent sent = rounds.Doubling(team.place, round);
    const Rounds::Sent back = rounds.Halving(team.place, round);
    const int to = team.ranks[sent.to], sender = team.ranks[back.to];
    if (sent.number == 1) {
      flow.Send(to, own);
    } else {
      ForRange(parts, sent.first, sent.number, [&](const Slice& part) { flow.Send(to, part); });
    }
    ForRange(parts, back.first, back.number, [&](const Slice& part) { flow.Recv(sender, part); });
  }
  if (rounds.last() == 1) flow.Copy(own, parts[team.place]);
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
