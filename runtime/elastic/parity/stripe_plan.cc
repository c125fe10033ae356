#include "runtime/elastic/parity/stripe_plan.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"
#include "runtime/elastic/parity/parity_balance.h"
#include "runtime/elastic/parity/policy.h"

namespace cohort::runtime::elastic {
namespace {

uint64_t RoundUp(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit * unit; }

uint64_t StreamBytes(const StripeRequest::Host& host) {
  uint64_t bytes = 0;
  for (const StripeRequest::Member& member : host.members) bytes += member.bytes;
  return bytes;
}

absl::Status CheckRequest(const StripeRequest& request) {
  const auto hosts = static_cast<int>(request.hosts.size());
  if (request.data < 1 || request.parity < 1 || request.data + request.parity > parity_policy::kMostBlocks) {
    return absl::InvalidArgumentError(absl::StrCat("parity: ", request.data, " data and ", request.parity,
                                                   " parity blocks; both are at least 1, together at most ",
                                                   parity_policy::kMostBlocks));
  }
  if (hosts < request.data + request.parity) {
    return absl::InvalidArgumentError(absl::StrCat(
        "parity: ", request.data, " data and ", request.parity, " parity blocks lie on ",
        request.data + request.parity, " hosts, and there are ", hosts, "; choose fewer data blocks"));
  }
  std::set<int> ranks;
  for (const StripeRequest::Host& host : request.hosts) {
    if (host.members.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("parity: host ", host.name, " has no ranks"));
    }
    for (const StripeRequest::Member& member : host.members) {
      if (member.rank < 0 || !ranks.insert(member.rank).second) {
        return absl::InvalidArgumentError(
            absl::StrCat("parity: rank ", member.rank, " of host ", host.name, " is there twice, or none"));
      }
    }
  }
  return absl::OkStatus();
}

// The data of stripes: always the hosts with the most blocks left, of which as few as possible are left over at the end.
std::vector<Stripe> DataStripes(const StripeRequest& request, uint64_t block_bytes) {
  struct Left {
    uint64_t blocks;
    int turn;  // in which it was taken last: the longest ago goes first, so that neighbours change
    int host;
    bool operator<(const Left& other) const {
      return std::tie(blocks, other.turn, other.host) < std::tie(other.blocks, turn, host);
    }
  };
  std::priority_queue<Left> left;
  std::vector<uint64_t> bytes, next(request.hosts.size());
  for (size_t h = 0; h < request.hosts.size(); ++h) {
    bytes.push_back(StreamBytes(request.hosts[h]));
    if (bytes[h] > 0) left.push({(bytes[h] + block_bytes - 1) / block_bytes, 0, static_cast<int>(h)});
  }
  std::vector<Stripe> stripes;
  for (int turn = 1; !left.empty(); ++turn) {
    Stripe stripe;
    std::vector<Left> taken;
    while (!left.empty() && static_cast<int>(taken.size()) < request.data) {
      taken.push_back(left.top());
      left.pop();
    }
    for (Left& one : taken) {
      const uint64_t size = std::min(block_bytes, bytes[one.host] - next[one.host]);
      stripe.data.push_back({one.host, next[one.host], size});
      stripe.bytes = std::max(stripe.bytes, size);
      next[one.host] += size;
      one.turn = turn;
      if (--one.blocks > 0) left.push(one);
    }
    stripes.push_back(std::move(stripe));
  }
  return stripes;
}

// The index of the smallest of those that `among` names, the first of equals.
int Least(const std::vector<uint64_t>& loads, const std::vector<int>& among) {
  return *std::min_element(among.begin(), among.end(), [&](int a, int b) { return loads[a] < loads[b]; });
}

}  // namespace

std::string ToText(const StripeRequest& request) {
  std::string text = absl::StrCat("stripes ", request.data, " ", request.parity, " ", request.block_bytes,
                                  " ", request.hosts.size(), "\n");
  for (const StripeRequest::Host& host : request.hosts) {
    // The name last, with its length: it may hold anything.
    absl::StrAppend(&text, host.members.size());
    for (const auto& member : host.members) absl::StrAppend(&text, " ", member.rank, " ", member.bytes);
    absl::StrAppend(&text, " ", host.name.size(), " ", host.name, "\n");
  }
  return text;
}

absl::StatusOr<StripeRequest> ParseStripeRequest(absl::string_view text) {
  const absl::Status broken = absl::DataLossError("parity: the text of the stripes is not as it was written");
  const auto word = [&text](absl::string_view ends) {
    const size_t end = std::min(text.find_first_of(ends), text.size());
    const absl::string_view found = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    return found;
  };
  const auto number = [&](auto* to, absl::string_view ends = " ") {
    return absl::SimpleAtoi(word(ends), to);
  };
  StripeRequest request;
  size_t hosts = 0;
  if (word(" ") != "stripes" || !number(&request.data) || !number(&request.parity) ||
      !number(&request.block_bytes) || !number(&hosts, "\n")) {
    return broken;
  }
  for (size_t h = 0; h < hosts; ++h) {
    StripeRequest::Host host;
    size_t members = 0, name_bytes = 0;
    if (!number(&members)) return broken;
    for (size_t i = 0; i < members; ++i) {
      StripeRequest::Member member;
      if (!number(&member.rank) || !number(&member.bytes)) return broken;
      host.members.push_back(member);
    }
    if (!number(&name_bytes) || name_bytes >= text.size() || text[name_bytes] != '\n') return broken;
    host.name = std::string(text.substr(0, name_bytes));
    text.remove_prefix(name_bytes + 1);
    request.hosts.push_back(std::move(host));
  }
  if (!text.empty()) return broken;
  return request;
}

uint64_t StripePlan::KeptBytes(int rank) const {
  if (rank < 0 || rank >= ranks() || kept[rank].empty()) return 0;
  const Kept& last = kept[rank].back();
  return last.offset + stripes[last.stripe].bytes;
}

absl::StatusOr<StripePlan> PlanStripes(const StripeRequest& request) {
  COHORT_RETURN_IF_ERROR(CheckRequest(request));
  StripePlan plan;
  plan.request = request;
  uint64_t most = 0;
  int ranks = 0;
  for (const StripeRequest::Host& host : request.hosts) {
    most = std::max(most, StreamBytes(host));
    for (const StripeRequest::Member& member : host.members) ranks = std::max(ranks, member.rank + 1);
  }
  plan.block_bytes = request.block_bytes;
  if (plan.block_bytes == 0) {
    const uint64_t even = (most + parity_policy::kBlocksPerHost - 1) / parity_policy::kBlocksPerHost;
    plan.block_bytes = RoundUp(std::max<uint64_t>(even, 1), parity_policy::kLeastBlockBytes);
  }
  plan.host_of.assign(ranks, -1);
  plan.stream_offset.assign(ranks, 0);
  plan.kept.resize(ranks);
  for (size_t h = 0; h < request.hosts.size(); ++h) {
    uint64_t at = 0;
    for (const StripeRequest::Member& member : request.hosts[h].members) {
      plan.host_of[member.rank] = static_cast<int>(h);
      plan.stream_offset[member.rank] = at;
      at += member.bytes;
    }
  }

  plan.stripes = DataStripes(request, plan.block_bytes);
  std::vector<std::vector<int>> members;
  for (const Stripe& stripe : plan.stripes) {
    std::vector<int>& hosts = members.emplace_back();
    for (const Stripe::Block& block : stripe.data) hosts.push_back(block.host);
  }
  const std::vector<std::vector<int>> keepers =
      BalanceParity(static_cast<int>(request.hosts.size()), members, request.parity);

  // Who encodes gets k blocks and sends m - 1: that goes around too, and so do the ranks of a host.
  std::vector<uint64_t> encoded(request.hosts.size()), kept(ranks);
  for (size_t s = 0; s < plan.stripes.size(); ++s) {
    std::vector<int> hosts = keepers[s];
    std::sort(hosts.begin(), hosts.end());
    const int encoder = Least(encoded, hosts);
    encoded[encoder] += plan.stripes[s].bytes;
    std::rotate(hosts.begin(), std::find(hosts.begin(), hosts.end(), encoder), hosts.end());
    for (size_t j = 0; j < hosts.size(); ++j) {
      std::vector<int> candidates;
      for (const auto& member : request.hosts[hosts[j]].members) candidates.push_back(member.rank);
      const int rank = Least(kept, candidates);
      plan.stripes[s].parity.push_back(rank);
      plan.kept[rank].push_back({static_cast<int>(s), static_cast<int>(j), kept[rank]});
      kept[rank] += plan.stripes[s].bytes;
    }
  }
  return plan;
}

std::vector<RankRange> RanksOf(const StripePlan& plan, int host, uint64_t offset, uint64_t bytes) {
  std::vector<RankRange> ranges;
  const uint64_t end = offset + bytes;
  for (const StripeRequest::Member& member : plan.request.hosts[host].members) {
    const uint64_t begin = plan.stream_offset[member.rank];
    const uint64_t from = std::max(begin, offset), to = std::min(begin + member.bytes, end);
    if (from < to) ranges.push_back({member.rank, from - begin, to - from, from - offset});
  }
  return ranges;
}

}  // namespace cohort::runtime::elastic
