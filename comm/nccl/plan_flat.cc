// NCCL over all ranks. Where counts differ by rank NCCL has no call: a group of broadcasts is an all-gather, one of reduces
// a reduce-scatter, and one of sends and receives is everything else.
#include <algorithm>

#include "comm/check.h"
#include "comm/nccl/plan.h"

namespace cohort::comm::nccl {
namespace {

bool AllEqual(const std::vector<size_t>& counts) {
  return std::all_of(counts.begin(), counts.end(), [&](size_t count) { return count == counts[0]; });
}

std::vector<size_t> Offsets(const std::vector<size_t>& counts) {
  std::vector<size_t> offsets(1, 0);
  for (const size_t count : counts) offsets.push_back(offsets.back() + count);
  return offsets;
}

Step Copy(Place from, Place to, size_t count) {
  return {.from = from, .to = to, .count = count, .copy = true};
}

void AddReduceScatter(const Collective& call, Plan* plan) {
  if (AllEqual(call.counts)) {
    if (call.counts[0] == 0) return;
    plan->before.push_back(
        {CallKind::kReduceScatter, {Buffer::kSend, 0}, {Buffer::kRecv, 0}, call.counts[0]});
    return;
  }
  const std::vector<size_t> at = Offsets(call.counts);
  for (int rank = 0; rank < call.size; ++rank) {
    if (call.counts[rank] == 0) continue;
    plan->before.push_back(
        {CallKind::kReduce, {Buffer::kSend, at[rank]}, {Buffer::kRecv, 0}, call.counts[rank], rank});
  }
}

void AddAllGather(const Collective& call, Plan* plan) {
  if (AllEqual(call.counts)) {
    if (call.counts[0] == 0) return;
    plan->before.push_back({CallKind::kAllGather, {Buffer::kSend, 0}, {Buffer::kRecv, 0}, call.counts[0]});
    return;
  }
  const std::vector<size_t> at = Offsets(call.counts);
  for (int rank = 0; rank < call.size; ++rank) {
    if (call.counts[rank] == 0) continue;
    const Place to = {Buffer::kRecv, at[rank]};
    const Place from = rank == call.rank ? Place{Buffer::kSend, 0} : to;
    plan->before.push_back({CallKind::kBroadcast, from, to, call.counts[rank], rank});
  }
}

void AddGather(const Collective& call, Plan* plan) {
  const std::vector<size_t> at = Offsets(call.counts);
  const size_t own = call.counts[call.rank];
  if (call.rank != call.root) {
    if (own > 0) plan->before.push_back({CallKind::kSend, {Buffer::kSend, 0}, {}, own, call.root});
    return;
  }
  for (int rank = 0; rank < call.size; ++rank) {
    const Place to = {Buffer::kRecv, at[rank]};
    if (call.counts[rank] == 0) continue;
    if (rank != call.rank) {
      plan->before.push_back({CallKind::kRecv, {}, to, call.counts[rank], rank});
    } else if (!call.in_place) {
      plan->before.push_back(Copy({Buffer::kSend, 0}, to, own));
    }
  }
}

void AddScatter(const Collective& call, Plan* plan) {
  const std::vector<size_t> at = Offsets(call.counts);
  const size_t own = call.counts[call.rank];
  if (call.rank != call.root) {
    if (own > 0) plan->before.push_back({CallKind::kRecv, {}, {Buffer::kRecv, 0}, own, call.root});
    return;
  }
  for (int rank = 0; rank < call.size; ++rank) {
    const Place from = {Buffer::kSend, at[rank]};
    if (call.counts[rank] == 0) continue;
    if (rank != call.rank) {
      plan->before.push_back({CallKind::kSend, from, {}, call.counts[rank], rank});
    } else if (!call.in_place) {
      plan->before.push_back(Copy(from, {Buffer::kRecv, 0}, own));
    }
  }
}

void AddAllToAll(const Collective& call, Plan* plan) {
  const std::vector<size_t> from = Offsets(call.counts), to = Offsets(call.recv_counts);
  for (int rank = 0; rank < call.size; ++rank) {
    if (rank == call.rank) {
      if (call.counts[rank] > 0) {
        plan->before.push_back(
            Copy({Buffer::kSend, from[rank]}, {Buffer::kRecv, to[rank]}, call.counts[rank]));
      }
      continue;
    }
    if (call.counts[rank] > 0) {
      plan->before.push_back({CallKind::kSend, {Buffer::kSend, from[rank]}, {}, call.counts[rank], rank});
    }
    if (call.recv_counts[rank] > 0) {
      plan->before.push_back({CallKind::kRecv, {}, {Buffer::kRecv, to[rank]}, call.recv_counts[rank], rank});
    }
  }
}

}  // namespace

Plan FlatPlan(const Collective& call) {
  Plan plan;
  const Place send = {Buffer::kSend, 0}, recv = {Buffer::kRecv, 0};
  switch (call.operation) {
    case Operation::kAllReduce:
      if (call.count > 0) plan.before.push_back({CallKind::kAllReduce, send, recv, call.count});
      break;
    case Operation::kBroadcast:
      if (call.count > 0) plan.before.push_back({CallKind::kBroadcast, recv, recv, call.count, call.root});
      break;
    case Operation::kReduce:
      if (call.count > 0) plan.before.push_back({CallKind::kReduce, send, recv, call.count, call.root});
      break;
    case Operation::kReduceScatter:
      AddReduceScatter(call, &plan);
      break;
    case Operation::kAllGather:
      AddAllGather(call, &plan);
      break;
    case Operation::kGather:
      AddGather(call, &plan);
      break;
    case Operation::kScatter:
      AddScatter(call, &plan);
      break;
    case Operation::kAllToAll:
    case Operation::kAllToAllV:
      AddAllToAll(call, &plan);
      break;
    case Operation::kBarrier:  // NCCL has none: nobody has the sum before all have brought their part
      plan.scratch = 1;
      plan.before.push_back({CallKind::kAllReduce, {Buffer::kScratch, 0}, {Buffer::kScratch, 0}, 1});
      break;
    default:
      COHORT_CHECK(false, "%s has no plan of NCCL's", Name(call.operation));
  }
  return plan;
}

}  // namespace cohort::comm::nccl
