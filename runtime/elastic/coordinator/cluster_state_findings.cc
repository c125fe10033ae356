// What is found of members: dead, stopped, cut off, slow; and whom their hosts are asked to look at.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/elastic/coordinator/cluster_state.h"
#include "runtime/elastic/detect/verdict.h"

namespace cohort::cluster {
namespace {

namespace elastic = runtime::elastic;

v1::EventKind KindOf(elastic::Health health) {
  switch (health) {
    case elastic::Health::kFine:
      break;
    case elastic::Health::kDead:
      return v1::EVENT_KIND_DEAD;
    case elastic::Health::kStopped:
      return v1::EVENT_KIND_STOPPED;
    case elastic::Health::kCutOff:
      return v1::EVENT_KIND_CUT_OFF;
  }
  return v1::EVENT_KIND_UNSPECIFIED;
}

// "b (rank 1 on host)".
std::string Who(const v1::Member& member) {
  return absl::StrCat(member.name(), " (",
                      member.last_place() > 0 ? absl::StrCat("rank ", member.last_place() - 1, " ") : "",
                      "on ", member.host(), ")");
}

v1::ClusterCommand::Finding FindingOf(const v1::Member& member, v1::EventKind kind, int64_t step,
                                      absl::string_view words) {
  v1::ClusterCommand::Finding finding;
  finding.set_member_id(member.id());
  finding.set_kind(kind);
  finding.set_step(step);
  finding.set_words(absl::StrCat(Who(member), " ", words));
  if (member.last_place() > 0) finding.set_rank(member.last_place() - 1);
  finding.set_host(member.host());
  return finding;
}

}  // namespace

bool ClusterState::Lost(const v1::Member& member) const {
  return Evicted(member) && member.state() != v1::MEMBER_STATE_LEFT;
}

std::vector<elastic::Sighting> ClusterState::Sightings(absl::Time now) const {
  absl::Time newest_step = absl::InfinitePast();
  for (const auto& [id, entry] : members_) {
    if (InEpoch(entry.told) && entry.report.has_value()) newest_step = std::max(newest_step, entry.step_time);
  }
  const absl::Time epoch_time = absl::UnixEpoch() + absl::Seconds(epoch_.time());
  std::vector<elastic::Sighting> sightings;
  sightings.reserve(members_.size());
  for (const auto& [id, entry] : members_) {
    elastic::Sighting& seen = sightings.emplace_back();
    const v1::Member& member = entry.told;
    seen.host = member.host();
    // Nothing is expected of those that were never in the group.
    seen.lease = InEpoch(member) || Lost(member) ? member.state() : v1::MEMBER_STATE_LEFT;
    if (seen.lease == v1::MEMBER_STATE_LEFT) continue;
    seen.process = entry.process;
    if (Lost(member)) {
      seen.lost_seconds = absl::ToDoubleSeconds(std::max(now - epoch_time, absl::ZeroDuration()));
      seen.held = entry.live_since <= epoch_time;
      seen.heard = entry.heard > epoch_time;
    } else if (member.state() == v1::MEMBER_STATE_EXPIRED && newest_step > entry.lease_end + lease_) {
      // Ranks go in step: the others would have come no further without it.
      seen.reached = elastic::Known::kYes;
    }
    const auto asked = looks_.find(member.host_id());
    // After a restart nobody was asked yet, and a lease lasts anew.
    seen.asked = now < entry.lease_end ||
                 (asked != looks_.end() && asked->second.answers && now < entry.lease_end + lease_);
    if (!entry.report.has_value()) continue;
    const v1::StepReport& report = *entry.report;
    seen.step = report.step();
    seen.step_seconds = report.compute_seconds() + report.wait_seconds();
    seen.phase = report.phase();
    seen.report_age_seconds = absl::ToDoubleSeconds(now - entry.report_time);
    seen.step_age_seconds = absl::ToDoubleSeconds(now - entry.step_time);
  }
  return sightings;
}

std::vector<elastic::Verdict> ClusterState::Judgement(absl::Time now) const {
  return elastic::Judge(Sightings(now), absl::ToDoubleSeconds(lease_));
}

void ClusterState::AskHosts() {
  looks_.clear();
  for (auto& [id, entry] : members_) {
    const v1::Member& member = entry.told;
    const bool doubtful = Lost(member) || (InEpoch(member) && member.state() == v1::MEMBER_STATE_EXPIRED);
    if (!doubtful) entry.process = v1::PROCESS_STATE_UNSPECIFIED;
    if (doubtful && !member.host_id().empty()) looks_[member.host_id()].members.push_back(id);
  }
  if (looks_.empty()) return;
  for (const auto& [id, entry] : members_) {
    const v1::Member& member = entry.told;
    if (member.state() != v1::MEMBER_STATE_LIVE || Lost(member)) continue;
    if (const auto look = looks_.find(member.host_id()); look != looks_.end()) look->second.answers = true;
  }
}

void ClusterState::TakeSeen(const v1::RenewRequest& request, const v1::Member& member) {
  const auto look = looks_.find(member.host_id());
  if (look == looks_.end()) return;
  for (const v1::ProcessSeen& seen : request.seen()) {
    for (const int64_t id : look->second.members) {
      MemberEntry* other = Find(id);
      if (other != nullptr && other->told.pid() == seen.pid()) other->process = seen.state();
    }
  }
}

void ClusterState::AskToLook(const v1::Member& member, v1::RenewResponse& response) const {
  const auto look = looks_.find(member.host_id());
  if (look == looks_.end()) return;
  for (const int64_t id : look->second.members) {
    const auto other = members_.find(id);
    if (other == members_.end() || other->second.told.pid() == member.pid()) continue;
    response.add_look_at(other->second.told.pid());
  }
}

void ClusterState::FindStragglers(v1::ClusterCommand::Expire& expire) {
  for (const auto& change : detector_.Judge()) {
    const MemberEntry* member = Find(change.straggler.member);
    if (member == nullptr) continue;
    v1::ClusterCommand::Finding& finding = *expire.add_findings();
    finding =
        FindingOf(member->told, change.ended ? v1::EVENT_KIND_WELL : v1::EVENT_KIND_STRAGGLER,
                  change.straggler.step, change.ended ? "is slow no more" : DebugString(change.straggler));
    if (change.ended) finding.set_over(v1::EVENT_KIND_STRAGGLER);
  }
}

void ClusterState::FindUnwell(v1::ClusterCommand::Expire& expire, absl::Time now) {
  const std::vector<elastic::Verdict> verdicts = Judgement(now);
  size_t place = 0;
  for (const auto& [id, entry] : members_) {
    const elastic::Verdict& verdict = verdicts[place++];
    const v1::EventKind kind = KindOf(verdict.health);
    const v1::Member& member = entry.told;
    if (kind == member.found() || verdict.open) continue;
    const int64_t step = entry.report.has_value() ? entry.report->step() : 0;
    if (kind != v1::EVENT_KIND_UNSPECIFIED) {
      *expire.add_findings() = FindingOf(
          member, kind, step, absl::StrCat("is ", elastic::Name(verdict.health), ": ", verdict.why));
      continue;
    }
    v1::ClusterCommand::Finding& finding = *expire.add_findings();
    finding = FindingOf(member, v1::EVENT_KIND_WELL, step,
                        InEpoch(member) ? "is well again" : "is heard again, and not in the group");
    finding.set_over(member.found());
  }
}

void ClusterState::TakeFinding(const v1::ClusterCommand::Finding& finding, Turn& turn) {
  MemberEntry* member = Find(finding.member_id());
  if (member == nullptr) return;
  switch (finding.kind()) {
    case v1::EVENT_KIND_DEAD:
    case v1::EVENT_KIND_STOPPED:
    case v1::EVENT_KIND_CUT_OFF:
      member->told.set_found(finding.kind());
      break;
    case v1::EVENT_KIND_WELL:
      if (finding.over() == member->told.found()) member->told.clear_found();
      break;
    default:
      break;
  }
  v1::Event event;
  event.set_kind(finding.kind());
  event.set_member_id(finding.member_id());
  event.set_member(member->told.name());
  event.set_subject(member->told.name());
  event.set_step(finding.step());
  event.set_words(finding.words());
  if (finding.has_rank()) event.set_rank(finding.rank());
  event.set_host(finding.host());
  Emit(std::move(event), turn);
}

std::vector<std::string> ClusterState::Verdicts(absl::Time now) const {
  std::vector<std::string> words;
  words.reserve(members_.size());
  for (const elastic::Verdict& verdict : Judgement(now)) {
    words.push_back(verdict.why.empty() ? ""
                                        : absl::StrCat(elastic::Name(verdict.health), ": ", verdict.why));
  }
  size_t place = 0;
  for (const auto& [id, entry] : members_) {
    std::string& verdict = words[place++];
    const elastic::Straggler* slow = detector_.Find(id);
    if (verdict.empty() && slow != nullptr) verdict = absl::StrCat("straggler: ", DebugString(*slow));
  }
  return words;
}

}  // namespace cohort::cluster
