#include "comm/host_map.h"

#include <algorithm>
#include <unordered_map>

namespace cohort::comm {
namespace {

std::vector<HostMap::Place> OnHosts(absl::Span<const int> host_of) {
  std::vector<HostMap::Place> places;
  places.reserve(host_of.size());
  for (const int host : host_of) places.push_back({host, -1, -1});
  return places;
}

}  // namespace

HostMap::HostMap(absl::Span<const int> host_of) : HostMap(OnHosts(host_of)) {}

HostMap::HostMap(absl::Span<const Place> places) : places_(places.begin(), places.end()) {
  std::unordered_map<int, int> number_of;
  local_rank_.reserve(places.size());
  for (int rank = 0; rank < size(); ++rank) {
    int& host = places_[rank].host;
    const auto [at, fresh] = number_of.try_emplace(host, num_hosts());
    if (fresh) ranks_on_.emplace_back();
    host = at->second;
    local_rank_.push_back(static_cast<int>(ranks_on_[host].size()));
    ranks_on_[host].push_back(rank);
  }
  for (const std::vector<int>& ranks : ranks_on_) {
    const int count = static_cast<int>(ranks.size());
    fewest_ = fewest_ == 0 ? count : std::min(fewest_, count);
    most_ = std::max(most_, count);
  }
}

Distance HostMap::Between(int a, int b) const {
  const Place &x = places_[a], &y = places_[b];
  if (x.host != y.host) return Distance::kRack;
  if (x.numa >= 0 && x.numa == y.numa) return Distance::kNuma;
  return x.socket >= 0 && x.socket == y.socket ? Distance::kSocket : Distance::kHost;
}

std::shared_ptr<const HostMap> HostMap::OneHost(int size) {
  return std::make_shared<const HostMap>(std::vector<int>(static_cast<size_t>(size), 0));
}

}  // namespace cohort::comm
