#include "runtime/elastic/detect/straggler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_format.h"
#include "runtime/elastic/detect/policy.h"

namespace cohort::runtime::elastic {
namespace {

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

double Median(const std::deque<double>& values) {
  return Median(std::vector<double>(values.begin(), values.end()));
}

// Each value less the median of the others; two or more.
std::vector<double> OverOthers(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  const size_t others = values.size() - 1;
  std::vector<double> over(values.size());
  for (size_t place = 0; place < order.size(); ++place) {
    const auto other = [&](size_t index) { return values[order[index < place ? index : index + 1]]; };
    const double median =
        others % 2 == 1 ? other(others / 2) : (other(others / 2 - 1) + other(others / 2)) / 2;
    over[order[place]] = values[order[place]] - median;
  }
  return over;
}

void Keep(std::deque<double>& values, double value, size_t most) {
  values.push_back(value);
  if (values.size() > most) values.pop_front();
}

}  // namespace

std::string DebugString(const Straggler& straggler) {
  return absl::StrFormat("computes %.1f times as long as %s, %.3g s a step", straggler.factor,
                         straggler.past ? "before" : "the others", straggler.seconds);
}

void StragglerDetector::Add(int64_t id, const WorkShare& share, int64_t step, double seconds) {
  if (!(seconds > 0) || !std::isfinite(seconds)) return;
  Member& member = members_[id];
  if (step <= member.newest) return;
  if (!(member.share == share)) {
    member = Member();
    member.share = share;
  }
  member.newest = step;
  if (step <= judged_) return;  // the others have gone on
  member.pending.push_back({step, seconds});
  if (member.pending.size() > detect_policy::kPendingSteps) member.pending.pop_front();
}

void StragglerDetector::Forget(int64_t member) { members_.erase(member); }

void StragglerDetector::Reset() { *this = StragglerDetector(); }

std::vector<StragglerDetector::Change> StragglerDetector::Judge() {
  std::vector<Change> changes;
  if (members_.empty()) return changes;
  int64_t least = INT64_MAX, most = 0;
  for (const auto& [id, member] : members_) {
    least = std::min(least, member.newest);
    most = std::max(most, member.newest);
  }
  const int64_t until = std::max(least, most - detect_policy::kAhead);
  for (;;) {
    int64_t next = INT64_MAX;
    for (const auto& [id, member] : members_) {
      if (!member.pending.empty()) next = std::min(next, member.pending.front().step);
    }
    if (next > until) return changes;
    JudgeStep(next, changes);
    judged_ = next;
  }
}

void StragglerDetector::Compare(std::vector<Seen>& seen) const {
  std::map<int, std::vector<Seen*>> stages;
  bool weighed = true;
  for (Seen& one : seen) {
    stages[one.member->share.stage].push_back(&one);
    weighed = weighed && one.member->share.weight > 0;
  }
  std::vector<Seen*> alone;
  for (const auto& [stage, group] : stages) {
    if (group.size() == 1) {
      alone.push_back(group.front());
      continue;
    }
    std::vector<double> values;
    for (const Seen* one : group) values.push_back(one->log_seconds);
    const std::vector<double> over = OverOthers(values);
    for (size_t i = 0; i < group.size(); ++i) {
      group[i]->evidence = over[i];
      group[i]->known = true;
    }
  }
  if (alone.empty() || seen.size() < 2) return;
  std::vector<double> values;
  for (const Seen& one : seen) {
    values.push_back(one.log_seconds - (weighed ? std::log(one.member->share.weight) : 0));
  }
  const std::vector<double> over = OverOthers(values);
  for (Seen* one : alone) {
    // What has changed for all (longer sequences, a busier machine) is nobody's fault.
    one->over_all = over[static_cast<size_t>(one - seen.data())];
    one->by_past = !weighed;
    const bool enough = one->member->past.size() >= detect_policy::kLeastPast;
    one->known = weighed || enough;
    one->evidence = one->over_all - (weighed || !enough ? 0 : Median(one->member->past));
  }
}

double StragglerDetector::EvidenceNeeded(const std::vector<Seen>& seen) {
  std::vector<double> leaps;
  for (const Seen& one : seen) {
    if (one.known && !one.member->evidence.empty())
      leaps.push_back(std::abs(one.evidence - one.member->evidence.back()));
  }
  if (!leaps.empty()) Keep(scatter_, Median(std::move(leaps)), detect_policy::kScatterSteps);
  if (scatter_.empty()) return detect_policy::kLeastEvidence;
  // Of the difference of two normal variables half is within 0.6745 sqrt(2) standard deviations.
  const double deviation = Median(scatter_) / (0.6745 * std::sqrt(2.0));
  return std::max(detect_policy::kLeastEvidence, detect_policy::kAlarmExponent * deviation * deviation /
                                                     std::log(detect_policy::kSlowFactor));
}

void StragglerDetector::JudgeStep(int64_t step, std::vector<Change>& changes) {
  std::vector<Seen> seen;
  for (auto& [id, member] : members_) {
    if (member.pending.empty() || member.pending.front().step != step) continue;
    seen.push_back({.member = &member, .id = id, .log_seconds = std::log(member.pending.front().seconds)});
    member.pending.pop_front();
  }
  // Where most have not told, the rest are nobody to be compared with.
  if (2 * seen.size() < members_.size()) return;
  Compare(seen);
  const double needed = EvidenceNeeded(seen);
  const double slow_above = std::log(detect_policy::kSlowFactor) / 2;
  const double fine_below = std::log(detect_policy::kEndFactor);
  const double most = detect_policy::kStepEvidence;
  for (Seen& one : seen) {
    Member& member = *one.member;
    if (++member.judged <= detect_policy::kFirstSteps) continue;
    if (one.known) {
      Keep(member.evidence, one.evidence, detect_policy::kToldSteps);
      double& evidence = member.is_slow ? member.fine : member.slow;
      const double gained = member.is_slow ? fine_below - one.evidence : one.evidence - slow_above;
      evidence = std::max(0.0, evidence + std::clamp(gained, -most, most));
      member.gathering = evidence == 0 ? 0 : member.gathering + std::exp(one.log_seconds);
      const bool enough = evidence >= needed && member.gathering >= detect_policy::kLeastSeconds;
      if (member.is_slow || enough) {
        const bool begins = !member.is_slow;
        const double told = Median(member.evidence);
        member.verdict = {.member = one.id,
                          .step = begins ? step : member.verdict.step,
                          .factor = std::exp(begins ? std::max(told, slow_above) : told),
                          .seconds = std::exp(one.log_seconds),
                          .past = one.by_past};
        const bool ends = !begins && enough;
        if (begins || ends) {
          changes.push_back({.straggler = member.verdict, .ended = ends});
          member.is_slow = begins;
          member.slow = member.fine = member.gathering = 0;
        }
      }
    }
    // What it gathers evidence for is not its past: it would become used to it.
    if (one.by_past && !member.is_slow && member.slow == 0) {
      Keep(member.past, one.over_all, detect_policy::kPastSteps);
    }
  }
}

const Straggler* StragglerDetector::Find(int64_t id) const {
  const auto found = members_.find(id);
  return found != members_.end() && found->second.is_slow ? &found->second.verdict : nullptr;
}

std::map<int64_t, Straggler> StragglerDetector::Stragglers() const {
  std::map<int64_t, Straggler> slow;
  for (const auto& [id, member] : members_) {
    if (member.is_slow) slow[id] = member.verdict;
  }
  return slow;
}

}  // namespace cohort::runtime::elastic
