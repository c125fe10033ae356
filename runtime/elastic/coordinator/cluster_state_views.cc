// Looks at the state, and the state as a value.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/elastic/coordinator/cluster_state.h"

namespace cohort::cluster {
namespace {

absl::Status Broken(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("a snapshot of the coordinator's state has ", what));
}

}  // namespace

int ClusterState::newcomers_waiting() const {
  if (waiting_ < 0) {
    waiting_ = static_cast<int>(
        std::count_if(posts_.begin(), posts_.end(), [&](const auto& post) { return Shown(post.second); }));
  }
  return waiting_;
}

const std::string* ClusterState::Answered(const std::string& name) const {
  const auto found = post_.find(name);
  if (found == post_.end()) return nullptr;
  const std::optional<std::string>& answer = posts_.at(found->second).answer;
  return answer.has_value() ? &*answer : nullptr;
}

v1::BoardWaitingResponse ClusterState::Waiting() const {
  v1::BoardWaitingResponse response;
  for (const auto& [place, post] : posts_) {
    if (!Shown(post)) continue;
    v1::BoardPosting& posting = *response.add_posts();
    posting.set_name(post.name);
    posting.set_text(post.text);
    posting.set_member_id(post.member_id);
    posting.set_time(UnixSeconds(post.time));
  }
  return response;
}

const std::string* ClusterState::Value(const std::string& launch_id, const std::string& key) const {
  for (const Launch& launch : launches_) {
    if (launch.id != launch_id) continue;
    const auto found = launch.values.find(key);
    return found == launch.values.end() ? nullptr : &found->second;
  }
  return nullptr;
}

std::vector<v1::Event> ClusterState::EventsFrom(uint64_t revision) const {
  const auto first =
      std::lower_bound(events_.begin(), events_.end(), revision,
                       [](const v1::Event& event, uint64_t wanted) { return event.revision() < wanted; });
  return {first, events_.end()};
}

v1::DescribeResponse ClusterState::Describe(int events, absl::Time now) const {
  v1::DescribeResponse response;
  response.set_job(job_);
  response.set_incarnation(incarnation_);
  response.set_time(UnixSeconds(now));
  response.set_started_time(UnixSeconds(started_));
  response.set_lease_seconds(absl::ToDoubleSeconds(lease_));
  *response.mutable_epoch() = epoch_;
  const std::vector<std::string> verdicts = Verdicts(now);
  for (const auto& [id, entry] : members_) {
    v1::Member& member = *response.add_members();
    member = entry.told;
    const auto rank = rank_.find(member.name());
    member.set_rank(InEpoch(member) && rank != rank_.end() ? rank->second : -1);
    member.set_evicted(Evicted(member));
    member.set_verdict(verdicts[static_cast<size_t>(response.members_size() - 1)]);
    member.set_lease_left_seconds(absl::ToDoubleSeconds(entry.lease_end - now));
    member.set_report_age_seconds(-1);
    if (!entry.report.has_value()) continue;
    *member.mutable_report() = *entry.report;
    member.mutable_report()->clear_recent_compute_seconds();  // for the detector
    member.set_report_age_seconds(absl::ToDoubleSeconds(now - entry.report_time));
  }
  const Summary summary = Summarize();
  response.set_step(summary.step);
  response.set_tokens_per_second(summary.tokens_per_second);
  *response.mutable_waiting() = Waiting().posts();
  for (v1::BoardPosting& post : *response.mutable_waiting()) post.clear_text();
  *response.mutable_totals() = totals_;
  response.set_last_revision(last_revision());
  const size_t wanted = std::min(events_.size(), static_cast<size_t>(std::max(events, 0)));
  for (auto it = events_.end() - static_cast<std::ptrdiff_t>(wanted); it != events_.end(); ++it) {
    *response.add_events() = *it;
  }
  return response;
}

ClusterState::Summary ClusterState::Summarize() const {
  Summary summary;
  summary.stragglers = static_cast<int>(detector_.Stragglers().size());
  for (const auto& [id, entry] : members_) {
    summary.live += entry.told.state() == v1::MEMBER_STATE_LIVE;
    summary.expired += entry.told.state() == v1::MEMBER_STATE_EXPIRED;
    summary.left += entry.told.state() == v1::MEMBER_STATE_LEFT;
    summary.dead += entry.told.found() == v1::EVENT_KIND_DEAD;
    summary.stopped += entry.told.found() == v1::EVENT_KIND_STOPPED;
    summary.cut_off += entry.told.found() == v1::EVENT_KIND_CUT_OFF;
    if (!InEpoch(entry.told) || entry.told.state() != v1::MEMBER_STATE_LIVE || !entry.report) continue;
    summary.step = std::max(summary.step, entry.report->step());
    const double seconds = entry.report->compute_seconds() + entry.report->wait_seconds();
    if (seconds > 0) summary.tokens_per_second += static_cast<double>(entry.report->tokens()) / seconds;
  }
  return summary;
}

void ClusterState::AdoptMemory(const ClusterState& former) {
  started_ = former.started_;
  last_tick_ = former.last_tick_;
  detector_ = former.detector_;
  looks_ = former.looks_;
  tie_asked_ = former.tie_asked_;
  for (auto& [id, entry] : members_) {
    const auto found = former.members_.find(id);
    if (found == former.members_.end()) continue;
    entry.lease_end = found->second.lease_end;
    entry.report = found->second.report;
    entry.report_time = found->second.report_time;
    entry.step_time = found->second.step_time;
    entry.live_since = found->second.live_since;
    entry.heard = found->second.heard;
    entry.process = found->second.process;
  }
}

v1::ClusterSnapshot ClusterState::Snapshot() const {
  v1::ClusterSnapshot snapshot;
  snapshot.set_job(job_);
  snapshot.set_incarnation(incarnation_);
  snapshot.set_next_member_id(next_member_id_);
  *snapshot.mutable_epoch() = epoch_;
  for (const auto& [id, member] : members_) *snapshot.add_members() = member.told;
  for (const auto& [place, post] : posts_) {
    v1::ClusterSnapshot::Post& written = *snapshot.add_posts();
    written.set_name(post.name);
    written.set_text(post.text);
    written.set_member_id(post.member_id);
    written.set_time_micros(absl::ToUnixMicros(post.time));
    if (post.answer.has_value()) written.set_answer(*post.answer);
  }
  for (const Launch& launch : launches_) {
    v1::ClusterSnapshot::Launch& written = *snapshot.add_launches();
    written.set_id(launch.id);
    for (const auto& [key, value] : launch.values) {
      v1::RendezvousPutRequest& pair = *written.add_keys();
      pair.set_key(key);
      pair.set_value(value);
    }
  }
  snapshot.set_next_revision(next_revision_);
  for (const v1::Event& event : events_) *snapshot.add_events() = event;
  *snapshot.mutable_totals() = totals_;
  for (const v1::ClusterSnapshot::Tie& tie : ties_) *snapshot.add_ties() = tie;
  return snapshot;
}

absl::StatusOr<ClusterState> ClusterState::Restore(const v1::ClusterSnapshot& snapshot,
                                                   absl::Duration lease) {
  ClusterState state(lease);
  state.job_ = snapshot.job();
  state.incarnation_ = snapshot.incarnation();
  state.next_member_id_ = snapshot.next_member_id();
  state.epoch_ = snapshot.epoch();
  state.next_revision_ = snapshot.next_revision();
  state.totals_ = snapshot.totals();
  if (!state.epoch_.members().empty() && state.epoch_.counted() == 0) {
    state.epoch_.set_counted(state.epoch_.number());  // a state of before there were two numbers
  }
  if (state.next_member_id_ < 1 || state.next_revision_ < 1) return Broken("no counters");
  for (const v1::Member& member : snapshot.members()) {
    if (member.id() < 1 || member.id() >= state.next_member_id_) {
      return Broken(absl::StrCat("the member id ", member.id()));
    }
    MemberEntry& entry = state.members_[member.id()];
    if (entry.told.id() != 0) return Broken(absl::StrCat("two members ", member.id()));
    entry.told = member;
    if (member.state() != v1::MEMBER_STATE_LIVE) ++state.not_live_;
    if (member.state() == v1::MEMBER_STATE_LEFT) continue;
    if (!state.holder_.emplace(member.name(), member.id()).second) {
      return Broken(absl::StrCat("two members named ", member.name()));
    }
  }
  for (const v1::ClusterSnapshot::Post& post : snapshot.posts()) {
    if (!state.post_.emplace(post.name(), state.next_post_).second) {
      return Broken(absl::StrCat("two posts of ", post.name()));
    }
    Post& kept = state.posts_[state.next_post_++];
    kept = {post.name(), post.text(), post.member_id(), absl::FromUnixMicros(post.time_micros()),
            std::nullopt};
    if (post.has_answer()) kept.answer = post.answer();
  }
  for (const v1::ClusterSnapshot::Launch& launch : snapshot.launches()) {
    Launch& kept = state.launches_.emplace_back();
    kept.id = launch.id();
    for (const v1::RendezvousPutRequest& pair : launch.keys()) kept.values[pair.key()] = pair.value();
  }
  for (const v1::Event& event : snapshot.events()) state.events_.push_back(event);
  for (const v1::ClusterSnapshot::Tie& tie : snapshot.ties()) state.ties_.push_back(tie);
  state.IndexEpoch();
  return state;
}

}  // namespace cohort::cluster
