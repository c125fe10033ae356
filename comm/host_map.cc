#include "comm/host_map.h"

#include <algorithm>
#include <unordered_map>

namespace cohort::comm {

HostMap::HostMap(absl::Span<const int> host_of) {
  std::unordered_map<int, int> number_of;
  host_of_.reserve(host_of.size());
  local_rank_.reserve(host_of.size());
  for (const int given : host_of) {
    const auto [at, fresh] = number_of.try_emplace(given, num_hosts());
    if (fresh) ranks_on_.emplace_back();
    std::vector<int>& ranks = ranks_on_[at->second];
    local_rank_.push_back(static_cast<int>(ranks.size()));
    ranks.push_back(static_cast<int>(host_of_.size()));
    host_of_.push_back(at->second);
  }
  for (const std::vector<int>& ranks : ranks_on_) {
    const int count = static_cast<int>(ranks.size());
    fewest_ = fewest_ == 0 ? count : std::min(fewest_, count);
    most_ = std::max(most_, count);
  }
}

std::shared_ptr<const HostMap> HostMap::OneHost(int size) {
  return std::make_shared<const HostMap>(std::vector<int>(static_cast<size_t>(size), 0));
}

}  // namespace cohort::comm
