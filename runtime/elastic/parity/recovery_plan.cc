#include "runtime/elastic/parity/recovery_plan.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "runtime/elastic/parity/policy.h"

namespace cohort::runtime::elastic {
namespace {

class Planner {
 public:
  Planner(const StripePlan& plan, const Survivors& survivors)
      : plan_(plan), survivors_(survivors), kept_offset_(plan.stripes.size()) {
    for (auto& offsets : kept_offset_) offsets.resize(static_cast<size_t>(plan.request.parity));
    for (const auto& rank : plan.kept) {
      for (const StripePlan::Kept& kept : rank) kept_offset_[kept.stripe][kept.index] = kept.offset;
    }
  }

  absl::StatusOr<RecoveryPlan> Make() {
    for (size_t s = 0; s < plan_.stripes.size(); ++s) {
      const Stripe& stripe = plan_.stripes[s];
      std::vector<std::vector<RankRange>> ranges;
      for (const Stripe::Block& block : stripe.data) {
        ranges.push_back(RanksOf(plan_, block.host, block.offset, block.bytes));
      }
      // Between two of these, every block is of one rank, or zeros.
      std::set<uint64_t> cuts = {0, stripe.bytes};
      for (const auto& block : ranges) {
        for (const RankRange& range : block) {
          cuts.insert(range.range_offset);
          cuts.insert(range.range_offset + range.bytes);
        }
      }
      for (uint64_t at = 0; at < stripe.bytes; at += parity_policy::kPieceBytes) cuts.insert(at);
      for (auto at = cuts.begin(); std::next(at) != cuts.end(); ++at) {
        for (size_t i = 0; i < ranges.size(); ++i) Solve(s, ranges, i, *at, *std::next(at) - *at);
      }
    }
    if (!lost_bytes_.empty()) return Lost();
    return std::move(recovery_);
  }

 private:
  static const RankRange* At(const std::vector<RankRange>& ranges, uint64_t from) {
    for (const RankRange& range : ranges) {
      if (range.range_offset <= from && from < range.range_offset + range.bytes) return &range;
    }
    return nullptr;
  }

  // Block i of the stripe in [from, from + bytes), where it is lost and wanted.
  void Solve(size_t s, const std::vector<std::vector<RankRange>>& ranges, size_t i, uint64_t from,
             uint64_t bytes) {
    const RankRange* lost = At(ranges[i], from);
    if (lost == nullptr || survivors_.image_at[lost->rank] >= 0 || survivors_.target[lost->rank] < 0) return;
    RecoveryStep step;
    step.stripe = static_cast<int>(s);
    step.from = from;
    step.bytes = bytes;
    step.lost_symbol = static_cast<int>(i);
    step.lost_rank = lost->rank;
    step.image_offset = lost->offset + (from - lost->range_offset);
    step.target = survivors_.target[lost->rank];
    const auto k = static_cast<size_t>(plan_.request.data);
    // Zeros cost nothing, and data are as good as parity; of each, what the target has itself is not sent.
    std::vector<RecoveryStep::Source> zeros, near, far;
    for (size_t d = 0; d < k; ++d) {
      if (d == i) continue;
      const auto symbol = static_cast<int>(d);
      const RankRange* range = d < ranges.size() ? At(ranges[d], from) : nullptr;
      if (range == nullptr) {
        zeros.push_back({symbol, -1, -1, 0, 0});
      } else if (const int at = survivors_.image_at[range->rank]; at >= 0) {
        (at == step.target ? near : far)
            .push_back({symbol, range->rank, at, range->offset + (from - range->range_offset), bytes});
      }
    }
    const Stripe& stripe = plan_.stripes[s];
    for (size_t j = 0; j < stripe.parity.size(); ++j) {
      const int at = survivors_.parity_at[stripe.parity[j]];
      if (at < 0) continue;
      (at == step.target ? near : far)
          .push_back({static_cast<int>(k + j), stripe.parity[j], at, kept_offset_[s][j] + from, bytes});
    }
    for (const auto* sources : {&zeros, &near, &far}) {
      for (const RecoveryStep::Source& source : *sources) {
        if (step.sources.size() < k) step.sources.push_back(source);
      }
    }
    if (step.sources.size() < k) {
      lost_bytes_[lost->rank] += bytes;
      return;
    }
    recovery_.steps.push_back(std::move(step));
  }

  absl::Status Lost() const {
    std::map<int, uint64_t> by_host;
    uint64_t bytes = 0;
    for (const auto& [rank, lost] : lost_bytes_) {
      by_host[plan_.host_of[rank]] += lost;
      bytes += lost;
    }
    std::set<int> gone;  // hosts of which an image or parity is missing
    for (int rank = 0; rank < plan_.ranks(); ++rank) {
      if (plan_.host_of[rank] < 0) continue;
      if (survivors_.image_at[rank] < 0 || (!plan_.kept[rank].empty() && survivors_.parity_at[rank] < 0)) {
        gone.insert(plan_.host_of[rank]);
      }
    }
    std::vector<std::string> names;
    for (const auto& [host, lost] : by_host) {
      names.push_back(absl::StrCat(plan_.request.hosts[host].name, " (", lost, " bytes)"));
    }
    if (names.size() > parity_policy::kListedNames) {
      const size_t more = names.size() - parity_policy::kListedNames;
      names.resize(parity_policy::kListedNames);
      names.push_back(absl::StrCat("and ", more, " more"));
    }
    return absl::DataLossError(
        absl::StrCat("parity: something is missing of ", gone.size(), " hosts, parity of ",
                     plan_.request.parity, " blocks for ", plan_.request.data, " makes up for ",
                     plan_.request.parity, "; lost for good are ", bytes, " bytes of ", lost_bytes_.size(),
                     " ranks, of hosts ", absl::StrJoin(names, ", "), ": go on from a checkpoint"));
  }

  const StripePlan& plan_;
  const Survivors& survivors_;
  std::vector<std::vector<uint64_t>> kept_offset_;  // by stripe and parity index
  RecoveryPlan recovery_;
  std::map<int, uint64_t> lost_bytes_;  // by rank
};

}  // namespace

absl::StatusOr<RecoveryPlan> PlanRecovery(const StripePlan& plan, const Survivors& survivors) {
  const auto ranks = static_cast<size_t>(plan.ranks());
  if (survivors.image_at.size() != ranks || survivors.parity_at.size() != ranks ||
      survivors.target.size() != ranks) {
    return absl::InvalidArgumentError(
        absl::StrCat("parity: survivors of another mesh than that of ", ranks, " ranks"));
  }
  return Planner(plan, survivors).Make();
}

}  // namespace cohort::runtime::elastic
