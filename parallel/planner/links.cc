#include "parallel/planner/links.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "comm/algorithms/algorithm.h"
#include "comm/check.h"
#include "parallel/planner/policy.h"

namespace cohort::parallel::planner {
namespace {

constexpr size_t kPricedElementBytes = 4;
constexpr double kPricedBytes[] = {256, 16 << 10, 1 << 20, 64 << 20, 4.0 * (1 << 30)};
// Beyond so many messages comm prices rounds by their slowest member.
constexpr size_t kReplayedMessages = 4096;

}  // namespace

LinkPrices::LinkPrices(comm::Machine machine, double scale)
    : machine_(std::move(machine)), scale_(scale), ranks_per_host_(machine_.hosts->most_on_a_host()) {}

int LinkPrices::OnOneHost(GroupShape group) const {
  if (hosts() == 1) return group.size;
  const int host = ranks_per_host_, block = group.size * group.stride;
  if (block <= host) {
    if (host % block == 0) return group.size;
    return std::max(
        1, std::gcd(host, block) / group.stride);  // what is left over on hosts forms groups across them
  }
  return std::clamp(host / group.stride, 1, group.size);
}

LinkPrices::Place LinkPrices::PlaceOf(GroupShape group) const {
  Place place{OnOneHost(group), 0, machine_.hosts_per_rack, machine_.rails, 1};
  if (place.together > 1) place.stride = group.stride % ranks_per_host_;
  // From one host of the group to the next.
  const int step = std::max(1, group.stride * place.together / ranks_per_host_);
  if (place.racks > 0) place.racks = std::max(1, place.racks / step);
  if (place.rails == 0) return place;
  // The part of a host's links that is this group's.
  place.own = static_cast<double>(machine_.rails) * place.together / ranks_per_host_;
  place.rails = std::max(1, static_cast<int>(place.own));
  place.own = std::min(place.own, 1.0);
  return place;
}

comm::Machine LinkPrices::MachineOf(GroupShape group, int size) const {
  const Place place = PlaceOf(group);
  // Of the largest host, whose ranks stand for those of all.
  int largest = 0;
  for (int host = 0; host < hosts(); ++host) {
    if (machine_.hosts->ranks_on(host).size() > machine_.hosts->ranks_on(largest).size()) largest = host;
  }
  const absl::Span<const int> ranks = machine_.hosts->ranks_on(largest);
  std::vector<comm::HostMap::Place> places(size);
  for (int i = 0; i < size; ++i) {
    const size_t local = static_cast<size_t>(i % place.together) * place.stride % ranks.size();
    places[i] = {i / place.together, machine_.hosts->socket_of(ranks[local]),
                 machine_.hosts->numa_of(ranks[local])};
  }
  comm::Machine machine = machine_;
  machine.hosts = std::make_shared<const comm::HostMap>(places);
  if (machine.hosts->num_hosts() == 1) return machine;
  machine.hosts_per_rack = place.racks;
  machine.rails = place.rails;
  if (place.own == 1) return machine;
  for (const comm::Distance distance : {comm::Distance::kRack, comm::Distance::kBeyond}) {
    machine.price[static_cast<int>(distance)].seconds_per_byte /= place.own;
    machine.gap[static_cast<int>(distance)] /= place.own;
  }
  return machine;
}

double LinkPrices::Cheapest(comm::Operation operation, GroupShape group, int ranks, int size_index) {
  double& best =
      cheapest_.try_emplace({operation, ranks, size_index, PlaceOf(group)}, HUGE_VAL).first->second;
  if (best < HUGE_VAL) return best;
  const comm::Machine machine = MachineOf(group, ranks);
  const size_t count = static_cast<size_t>(kPricedBytes[size_index]) / kPricedElementBytes;
  for (const comm::Algorithm& algorithm : comm::Algorithms()) {
    if (algorithm.operation != operation) continue;
    if (algorithm.by_host && (machine.hosts->num_hosts() == 1 || machine.hosts->most_on_a_host() == 1))
      continue;
    const auto price = comm::PriceOf(algorithm, machine, count, kPricedElementBytes, kReplayedMessages);
    if (price.ok()) best = std::min(best, price->seconds);
  }
  COHORT_CHECK(best < HUGE_VAL, "no algorithm of %s has a price", comm::Name(operation));
  return best;
}

double LinkPrices::AtSize(comm::Operation operation, GroupShape group, int size_index) {
  const int together = OnOneHost(group);
  const int most = std::max(policy::kPricedRanks, together < group.size ? 4 * together : 0);
  if (group.size <= most) return Cheapest(operation, group, group.size, size_index);
  // Rounds grow with the logarithm of the ranks, where these are many.
  const double full = Cheapest(operation, group, most, size_index);
  const double half = Cheapest(operation, group, most / 2, size_index);
  return full + (full - half) * std::log2(static_cast<double>(group.size) / most);
}

double LinkPrices::Seconds(comm::Operation operation, GroupShape group, double bytes) {
  if (group.size <= 1 || bytes <= 0) return 0;
  const uint64_t key = (static_cast<uint64_t>(operation) << 58) ^ (static_cast<uint64_t>(group.size) << 29) ^
                       static_cast<uint64_t>(group.stride);
  const auto [at, added] = curves_.try_emplace(key);
  Curve& curve = at->second;
  if (added) curve.fill(-1);
  const auto known = [&](int i) {
    if (curve[i] < 0) curve[i] = AtSize(operation, group, i);
    return curve[i];
  };
  int next = 1;
  while (next < kSizes - 1 && kPricedBytes[next] < bytes) ++next;
  const double from = kPricedBytes[next - 1], to = kPricedBytes[next];
  const double low = known(next - 1), high = known(next);
  const double line = low + (high - low) * (bytes - from) / (to - from);
  return scale_ * std::max(line, 0.0);
}

double LinkPrices::Send(GroupShape ring, double bytes) const {
  if (ring.size <= 1) return 0;
  const int together = OnOneHost(ring);
  if (together == ring.size) {
    const comm::Machine machine = MachineOf(ring, ring.size);
    double longest = 0;
    for (int i = 0; i + 1 < ring.size; ++i) {
      const comm::LinkPrice& price = machine.price[static_cast<int>(machine.Between(i, i + 1))];
      longest = std::max(longest, price.latency + bytes * price.seconds_per_byte);
    }
    return scale_ * longest;
  }
  // One hop of every ring leaves the host: `stride` rings run side by side.
  const int spanned = ring.size / together * std::max(1, ring.stride * together / ranks_per_host_);
  const bool far = machine_.hosts_per_rack > 0 && spanned > machine_.hosts_per_rack;
  const comm::LinkPrice& price =
      machine_.price[static_cast<int>(far ? comm::Distance::kBeyond : comm::Distance::kRack)];
  const double leaving = std::min(ring.stride, ranks_per_host_);
  const double own = machine_.rails == 0 ? 1 : std::min(1.0, machine_.rails / leaving);
  return scale_ * (price.latency + bytes * price.seconds_per_byte / own);
}

}  // namespace cohort::parallel::planner
