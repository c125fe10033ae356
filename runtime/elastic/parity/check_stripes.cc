// Judges stripe plans from what they say alone, without how they are made.
#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/elastic/parity/stripe_plan.h"

namespace cohort::runtime::elastic {
namespace {

absl::Status Wrong(size_t stripe, absl::string_view what) {
  return absl::InternalError(absl::StrCat("stripe plan: stripe ", stripe, " ", what));
}

}  // namespace

absl::Status CheckStripes(const StripePlan& plan) {
  const StripeRequest& request = plan.request;
  const auto hosts = static_cast<int>(request.hosts.size());
  std::map<int, int> host_of;  // by rank
  std::vector<uint64_t> stream(request.hosts.size());
  for (int h = 0; h < hosts; ++h) {
    for (const StripeRequest::Member& member : request.hosts[h].members) {
      host_of[member.rank] = h;
      stream[h] += member.bytes;
    }
  }
  std::vector<std::vector<std::pair<uint64_t, uint64_t>>> covered(request.hosts.size());
  std::map<std::pair<size_t, size_t>, int> keeper;  // (stripe, index): rank
  for (size_t s = 0; s < plan.stripes.size(); ++s) {
    const Stripe& stripe = plan.stripes[s];
    std::set<int> used;
    uint64_t longest = 0;
    if (stripe.data.empty() || static_cast<int>(stripe.data.size()) > request.data) {
      return Wrong(s, absl::StrCat("has ", stripe.data.size(), " data blocks"));
    }
    for (const Stripe::Block& block : stripe.data) {
      if (block.host < 0 || block.host >= hosts || !used.insert(block.host).second) {
        return Wrong(s, absl::StrCat("has host ", block.host, " twice, or there is none"));
      }
      if (block.bytes == 0 || block.bytes > plan.block_bytes) return Wrong(s, "has a block of a wrong size");
      covered[block.host].push_back({block.offset, block.bytes});
      longest = std::max(longest, block.bytes);
    }
    if (stripe.bytes != longest) return Wrong(s, "is not as long as its longest block");
    if (static_cast<int>(stripe.parity.size()) != request.parity) {
      return Wrong(s, absl::StrCat("has ", stripe.parity.size(), " parity blocks"));
    }
    for (size_t j = 0; j < stripe.parity.size(); ++j) {
      const auto at = host_of.find(stripe.parity[j]);
      if (at == host_of.end() || !used.insert(at->second).second) {
        return Wrong(
            s, absl::StrCat("keeps parity at rank ", stripe.parity[j], ", on a host that it has already"));
      }
      keeper[{s, j}] = stripe.parity[j];
    }
  }
  for (int h = 0; h < hosts; ++h) {
    std::sort(covered[h].begin(), covered[h].end());
    uint64_t at = 0;
    for (const auto& [offset, bytes] : covered[h]) {
      if (offset != at)
        return absl::InternalError(absl::StrCat("stripe plan: host ", h, " is not covered once at ", at));
      at += bytes;
    }
    if (at != stream[h]) {
      return absl::InternalError(
          absl::StrCat("stripe plan: host ", h, " has ", stream[h], " bytes, ", at, " are covered"));
    }
  }
  for (size_t r = 0; r < plan.kept.size(); ++r) {
    uint64_t at = 0;
    for (const StripePlan::Kept& kept : plan.kept[r]) {
      const auto found = keeper.find({static_cast<size_t>(kept.stripe), static_cast<size_t>(kept.index)});
      if (found == keeper.end() || found->second != static_cast<int>(r) || kept.offset != at) {
        return absl::InternalError(
            absl::StrCat("stripe plan: rank ", r, " keeps what is not its own, or elsewhere"));
      }
      keeper.erase(found);
      at += plan.stripes[kept.stripe].bytes;
    }
  }
  if (!keeper.empty()) return Wrong(keeper.begin()->first.first, "has parity that nobody keeps");
  return absl::OkStatus();
}

}  // namespace cohort::runtime::elastic
