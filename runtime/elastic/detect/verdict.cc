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

bool Waits(const v1::StepReport& report) { return absl::StartsWith(report.phase(), "wait"); }

Verdict JudgeSilent(const Sighting& member, const std::map<std::string, Host>& hosts) {
  if (member.process == Known::kNo) return {Health::kDead, "its process is gone"};
  if (member.reached == Known::kYes) {
    return {Health::kCutOff, "members reach it, and the coordinator does not"};
  }
  if (member.process == Known::kYes) {
    if (member.reached == Known::kNo && hosts.size() > 1) {
      return {Health::kCutOff, "its process is there, and no other member reaches it"};
    }
    return {Health::kStopped, "its process is there, and renews its lease no more"};
  }
  const Host& host = hosts.at(member.host);
  if (host.silent == host.members && host.members > 1 && hosts.size() > 1) {
    return {Health::kCutOff, absl::StrCat("nobody on its host ", member.host, " is heard any more")};
  }
  return {Health::kDead, "it is not heard any more"};
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

std::vector<Verdict> Judge(const std::vector<Sighting>& members) {
  std::map<std::string, Host> hosts;
  std::vector<double> seconds;
  int64_t most = 0;
  bool somebody_works = false;  // that has come as far as the slowest: it may be what the others wait for
  int64_t least = INT64_MAX;
  const auto counts = [](const Sighting& member) {
    return member.lease == v1::MEMBER_STATE_LIVE && member.report_age_seconds >= 0 &&
           member.report.step() > 0;
  };
  for (const Sighting& member : members) {
    if (member.lease == v1::MEMBER_STATE_LEFT) continue;
    Host& host = hosts[member.host];
    ++host.members;
    host.silent += member.lease == v1::MEMBER_STATE_EXPIRED;
    if (!counts(member)) continue;
    most = std::max(most, member.report.step());
    least = std::min(least, member.report.step());
    seconds.push_back(member.report.compute_seconds() + member.report.wait_seconds());
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
    waiting += member.step_age_seconds > patience && Waits(member.report);
  }
  std::vector<Verdict> verdicts;
  for (const Sighting& member : members) {
    Verdict& verdict = verdicts.emplace_back();
    if (member.lease == v1::MEMBER_STATE_LEFT) continue;
    if (member.process == Known::kNo || member.lease == v1::MEMBER_STATE_EXPIRED) {
      verdict = JudgeSilent(member, hosts);
    } else if (counts(member) && member.step_age_seconds > patience) {
      // Ranks go in step: where one hangs, all stop, and those that wait for it are not to blame.
      const bool behind = member.report.step() < most && member.report.step() == least;
      const bool alone_at_work =
          !somebody_works && stuck > 1 && waiting == stuck - 1 && !Waits(member.report);
      if (behind || alone_at_work) {
        verdict = {Health::kStopped,
                   absl::StrFormat("no step since %.0f s, in %s, and the others wait for it",
                                   member.step_age_seconds,
                                   member.report.phase().empty() ? "step" : member.report.phase())};
      }
    }
  }
  return verdicts;
}

}  // namespace cohort::runtime::elastic
