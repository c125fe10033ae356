// The exchanges across hosts are those of ZeRO++'s qgZ (Wang et al., "ZeRO++: Extremely efficient collective
// communication for large model training", 2023): parts go to their owner in one hop, each encoded once from an exact
// sum of its host, and the owner adds them in f32. A ring would encode at every hop.
#include "comm/codec/schedules.h"

#include <algorithm>

#include "comm/algorithms/blocks.h"
#include "comm/algorithms/policy.h"
#include "comm/check.h"
#include "comm/codec/policy.h"

namespace cohort::comm {
namespace {

using namespace algorithms;

// Nearly equal parts that end where blocks do, of any codec.
Cuts BlockCuts(size_t count, int parts) {
  Cuts cuts = EqualCuts((count + policy::kCodecBucket - 1) / policy::kCodecBucket, parts);
  for (size_t& cut : cuts) cut = std::min(count, cut * policy::kCodecBucket);
  return cuts;
}

// `source` encoded to a place of its own, and sent, after what was sent before.
StepId SendEncoded(Flow& flow, int peer, Slice source, StepId before = kNoStep) {
  const Slice wire = flow.Wire(source.count);
  flow.Copy(source, wire);
  return flow.Send(peer, wire, before);
}

// The sum of `source` over the team to `target`; they may be the same.
void SumAcross(Flow& flow, const Team& team, Slice source, Slice target) {
  const int p = team.size();
  if (p == 1) return flow.Copy(source, target);
  const Cuts cuts = BlockCuts(source.count, p);
  const Slice own = Member(source, cuts, team.place);
  const Slice sums = flow.Sums(own.count);
  flow.Copy(own, sums);
  // In turns, as Turns says.
  StepId sent = kNoStep;
  for (int distance = 1; distance < p; ++distance) {
    sent = SendEncoded(flow, team.At(distance), Member(source, cuts, Modulo(team.place + distance, p)), sent);
  }
  const Slice result = flow.Wire(own.count);
  for (int distance = 1; distance < p; ++distance) {
    const Slice wire = flow.Wire(own.count);
    flow.Recv(team.At(-distance), wire);
    flow.Reduce(wire, sums);
  }
  flow.Copy(sums, result);
  sent = kNoStep;
  for (int distance = 1; distance < p; ++distance) sent = flow.Send(team.At(distance), result, sent);
  flow.Copy(result, Member(target, cuts, team.place));
  for (int distance = 1; distance < p; ++distance) {
    const Slice part = Member(target, cuts, Modulo(team.place - distance, p));
    const Slice wire = flow.Wire(part.count);
    flow.Recv(team.At(-distance), wire);
    flow.Copy(wire, part);
  }
}

// A reduce-scatter by reading inside each host, the sum of every lane across hosts, an all-gather by reading.
Schedule AllReduce(const Collective& c) {
  Flow flow(c.in_place ? 0 : c.count, c.count);
  const size_t pieces = NumPieces(c, c.count);
  for (size_t piece = 0; piece < pieces; ++piece) {
    const Range range = Part(c.count, pieces, piece);
    const Slice output{Buffer::kOutput, range.begin, range.count};
    Slice source = Input(c, range.begin, range.count);
    const Lanes lanes(c, range.count);
    if (lanes.num_hosts() == 1) {
      SumAcross(flow, Everyone(c), source, output);
      continue;
    }
    const Team local = lanes.Local();
    const Cuts lane_cuts = BlockCuts(range.count, lanes.num_lanes());
    const Cuts local_cuts = lanes.LocalCuts(lane_cuts);
    if (local.size() > 1) {
      DirectReduceScatter(flow, local, local_cuts, source, Member(output, local_cuts, local.place));
      source = output;
    }
    const Range own = lanes.Own();
    for (size_t lane = own.begin; lane < own.begin + own.count; ++lane) {
      const int number = static_cast<int>(lane);
      SumAcross(flow, lanes.Across(number), Member(source, lane_cuts, number),
                Member(output, lane_cuts, number));
    }
    DirectAllGather(flow, local, Slices(output, local_cuts), Member(output, local_cuts, local.place));
  }
  return std::move(flow).Build();
}

// Adds to the sums what comes encoded from the team, and puts them where they belong.
void AddAcross(Flow& flow, const Team& team, Slice own, Slice output) {
  const Slice sums = flow.Sums(own.count);
  flow.Copy(own, sums);
  for (int distance = 1; distance < team.size(); ++distance) {
    const Slice wire = flow.Wire(own.count);
    flow.Recv(team.At(-distance), wire);
    flow.Reduce(wire, sums);
  }
  flow.Copy(sums, output);
}

// The owner of a lane sums by reading what its host's ranks bring for the ranks of the lane anywhere, and sends these
// sums encoded to the lane's other owners.
Schedule ReduceScatter(const Collective& c) {
  const Cuts offsets = Offsets(c.counts);
  Flow flow(offsets.back(), c.counts[c.rank]);
  const Slice input{Buffer::kInput, 0, offsets.back()};
  const Slice output{Buffer::kOutput, 0, c.counts[c.rank]};
  const Lanes lanes(c);
  if (lanes.num_hosts() == 1) {
    const Team all = Everyone(c);
    for (int distance = 1; distance < c.size; ++distance) {
      SendEncoded(flow, all.At(distance), Member(input, offsets, all.At(distance)));
    }
    AddAcross(flow, all, Member(input, offsets, c.rank), output);
    return std::move(flow).Build();
  }
  const Team local = lanes.Local();
  for (int lane = 0; lane < lanes.num_lanes(); ++lane) {
    const Team across = lanes.Across(lane);
    const std::vector<int> blocks = lanes.Blocks(lane);
    const int owner = across.ranks[across.place];
    if (owner != c.rank) {
      for (const int block : blocks) {
        if (block >= 0) flow.Send(owner, Member(input, offsets, block));
      }
      continue;
    }
    Slice own = output.Part(0, 0);
    for (int host = 0; host < lanes.num_hosts(); ++host) {
      if (blocks[host] < 0) continue;
      Slice sum = Member(input, offsets, blocks[host]);
      const Slice target = local.size() > 1 ? flow.Scratch(sum.count) : sum;
      for (int distance = 1; distance < local.size(); ++distance) {
        flow.RecvReduce(local.At(-distance), sum, target);
        sum = target;
      }
      if (host == across.place) {
        own = sum;
      } else {
        SendEncoded(flow, across.ranks[host], sum);
      }
    }
    if (blocks[across.place] >= 0) AddAcross(flow, across, own, output);
  }
  return std::move(flow).Build();
}

// Every part crosses to each other host once, encoded; there its lane's owner decodes it for all.
Schedule AllGather(const Collective& c) {
  const Cuts offsets = Offsets(c.counts);
  Flow flow(c.in_place ? 0 : c.counts[c.rank], offsets.back());
  const Slice output{Buffer::kOutput, 0, offsets.back()};
  const Slice home = Member(output, offsets, c.rank);
  const Slice own = c.in_place ? home : Slice{Buffer::kInput, 0, c.counts[c.rank]};
  // The own part as the others will see it.
  const auto bring = [&](const Team& team) {
    const Slice wire = flow.Wire(own.count);
    flow.Copy(own, wire);
    for (int distance = 1; distance < team.size(); ++distance) flow.Send(team.At(distance), wire);
    flow.Copy(wire, home);
  };
  const auto fetch = [&](int peer, Slice part) {
    const Slice wire = flow.Wire(part.count);
    flow.Recv(peer, wire);
    flow.Copy(wire, part);
  };
  const Lanes lanes(c);
  if (lanes.num_hosts() == 1) {
    const Team all = Everyone(c);
    bring(all);
    for (int distance = 1; distance < c.size; ++distance) {
      fetch(all.At(-distance), Member(output, offsets, all.At(-distance)));
    }
    return std::move(flow).Build();
  }
  const Team local = lanes.Local();
  for (int lane = 0; lane < lanes.num_lanes(); ++lane) {
    const Team across = lanes.Across(lane);
    const std::vector<int> blocks = lanes.Blocks(lane);
    const int owner = across.ranks[across.place];
    if (owner == c.rank && blocks[across.place] >= 0) bring(across);
    for (int distance = 0; distance < across.size(); ++distance) {
      const int host = Modulo(across.place - distance, across.size());
      if (blocks[host] < 0) continue;
      const Slice part = Member(output, offsets, blocks[host]);
      if (owner != c.rank) {
        flow.Recv(owner, part);
        continue;
      }
      if (distance > 0) fetch(across.ranks[host], part);
      for (int other = 1; other < local.size(); ++other) flow.Send(local.At(other), part);
    }
  }
  return std::move(flow).Build();
}

// Pairwise, encoded where a pair is on two hosts, or all are on one.
Schedule AllToAll(const Collective& c) {
  const std::vector<size_t> out = Offsets(c.counts), in = Offsets(c.recv_counts);
  Flow flow(out.back(), in.back());
  const auto hosts = Hosts(c);
  const auto encoded = [&](int peer) { return hosts->num_hosts() == 1 || !hosts->SameHost(c.rank, peer); };
  const Team all = Everyone(c);
  for (int distance = 1; distance < c.size; ++distance) {
    const int to = all.At(distance);
    const Slice part{Buffer::kInput, out[to], c.counts[to]};
    if (encoded(to)) {
      SendEncoded(flow, to, part);
    } else {
      flow.Send(to, part);
    }
  }
  for (int distance = 1; distance < c.size; ++distance) {
    const int from = all.At(-distance);
    const Slice part{Buffer::kOutput, in[from], c.recv_counts[from]};
    const Slice wire = encoded(from) ? flow.Wire(part.count) : part;
    flow.Recv(from, wire);
    flow.Copy(wire, part);
  }
  flow.Copy({Buffer::kInput, out[c.rank], c.counts[c.rank]}, {Buffer::kOutput, in[c.rank], c.counts[c.rank]});
  return std::move(flow).Build();
}

constexpr Algorithm kAlgorithms[] = {
    {Operation::kAllReduce, "quantized", "encoded parts to their owners across hosts, encoded sums back",
     AllReduce, true},
    {Operation::kReduceScatter, "quantized", "each host's sums, encoded, to their owners", ReduceScatter,
     false},
    {Operation::kAllGather, "quantized", "each part once to every host, encoded", AllGather, false},
    {Operation::kAllToAll, "quantized", "pairwise, encoded across hosts", AllToAll, false},
    {Operation::kAllToAllV, "quantized", "pairwise, encoded across hosts", AllToAll, false},
};

}  // namespace

absl::Span<const Algorithm> QuantizedAlgorithms() { return kAlgorithms; }

const Algorithm& SelectQuantized(Collective& collective) {
  const auto* at =
      std::find_if(std::begin(kAlgorithms), std::end(kAlgorithms),
                   [&](const Algorithm& algorithm) { return algorithm.operation == collective.operation; });
  COHORT_CHECK(at != std::end(kAlgorithms), "no quantized %s", Name(collective.operation));
  if (at->pipelined) collective.piece = policy::kPieceBytes / sizeof(float);
  return *at;
}

}  // namespace cohort::comm
