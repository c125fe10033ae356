#include "runtime/elastic/detect/verdict.h"

#include <algorithm>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/elastic/detect/policy.h"

namespace cohort::runtime::elastic {
namespace {

// Of a host: members that should be there, and those that nobody hears.
struct Host {
  int members = 0, silent = 0;
};

using Hosts = std::map<absl::string_view, Host>;

bool Waits(const Sighting& member) { return absl::StartsWith(member.phase, "wait"); }

// Of one whose process is gone, or whose lease has run out.
Verdict JudgeSilent(const Sighting& member, const Hosts& hosts) {
  if (member.process == v1::PROCESS_STATE_GONE) return {Health::kDead, "its process is gone"};
  if (member.process == v1::PROCESS_STATE_STOPPED)
    return {Health::kStopped, "a signal has stopped its process"};
  if (member.reached == Known::kYes) {
    return {Health::kCutOff, "members reach it, and the coordinator does not"};
  }
  if (member.process == v1::PROCESS_STATE_RUNS) {
    if (member.reached == Known::kNo && hosts.size() > 1) {
      return {Health::kCutOff, "its process is there, and no other member reaches it"};
    }
    return {Health::kStopped, "its process is there, and renews its lease no more"};
  }
  if (member.asked) return {.open = true};
  const Host& host = hosts.at(member.host);
  if (host.silent == host.members && host.members > 1 && hosts.size() > 1) {
    return {Health::kCutOff, absl::StrCat("nobody on its host ", member.host, " is heard any more")};
  }
  return {Health::kDead, "it is not heard any more"};
}

// Of one whose lease holds, and whom the members have lost.
Verdict JudgeLost(const Sighting& member, double lease_seconds) {
  if (member.process == v1::PROCESS_STATE_STOPPED)
    return {Health::kStopped, "a signal has stopped its process"};
  if (!member.heard) return {.open = true};
  if (!member.held) return {};  // it was away, and is back
  // It may have gone of its own will, and be about to say so.
  if (member.lost_seconds < lease_seconds) return {.open = true};
  return {Health::kCutOff, "the coordinator hears it, and the members do not"};
}

}  // namespace

absl::string_view Name(Health health) {
  switch (health) {
    case Health::kFine:
      return "fine";
    case Health::kDead:
      return "dead";
    case Health::kStopped:
      return "stopped";
    case Health::kCutOff:
      return "cut off";
  }
  return "";
}

std::vector<Verdict> Judge(const std::vector<Sighting>& members, double lease_seconds) {
  Hosts hosts;
  std::vector<double> seconds;
  int64_t most = 0;
  bool somebody_works = false;  // that has come as far as the slowest: it may be what the others wait for
  int64_t least = INT64_MAX;
  const auto counts = [](const Sighting& member) {
    return member.lease == v1::MEMBER_STATE_LIVE && member.lost_seconds < 0 &&
           member.report_age_seconds >= 0 && member.step > 0;
  };
  for (const Sighting& member : members) {
    if (member.lease == v1::MEMBER_STATE_LEFT) continue;
    Host& host = hosts[member.host];
    ++host.members;
    host.silent += member.lease == v1::MEMBER_STATE_EXPIRED;
    if (!counts(member)) continue;
    most = std::max(most, member.step);
    least = std::min(least, member.step);
    seconds.push_back(member.step_seconds);
  }
  double usual = 0;
  if (!seconds.empty()) {
    const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
    std::nth_element(seconds.begin(), middle, seconds.end());
    usual = *middle;
  }
  const double patience = std::max(detect_policy::kStuckSeconds, detect_policy::kStuckSteps * usual);
  int stuck = 0, waiting = 0;
  for (const Sighting& member : members) {
    if (!counts(member)) continue;
    if (member.step_age_seconds <= patience) somebody_works = true;
    stuck += member.step_age_seconds > patience;
    waiting += member.step_age_seconds > patience && Waits(member);
  }
  std::vector<Verdict> verdicts;
  for (const Sighting& member : members) {
    Verdict& verdict = verdicts.emplace_back();
    if (member.lease == v1::MEMBER_STATE_LEFT) continue;
    if (member.process == v1::PROCESS_STATE_GONE || member.lease == v1::MEMBER_STATE_EXPIRED) {
      verdict = JudgeSilent(member, hosts);
    } else if (member.lost_seconds >= 0) {
      verdict = JudgeLost(member, lease_seconds);
    } else if (counts(member) && member.step_age_seconds > patience) {
      // Ranks go in step: where one hangs, all stop, and those that wait for it are not to blame.
      const bool behind = member.step < most && member.step == least;
      const bool alone_at_work = !somebody_works && stuck > 1 && waiting == stuck - 1 && !Waits(member);
      if (behind || alone_at_work) {
        verdict = {Health::kStopped,
                   absl::StrFormat("no step since %.0f s, in %s, and the others wait for it",
                                   member.step_age_seconds, member.phase.empty() ? "step" : member.phase)};
      }
    }
  }
  return verdicts;
}

}  // namespace cohort::runtime::elastic
