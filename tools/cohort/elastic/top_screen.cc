#include "tools/cohort/elastic/top_screen.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "cohort/v1/elastic.pb.h"
#include "parallel/elastic/elastic_mesh.h"
#include "runtime/config/config.h"
#include "runtime/elastic/coordinator/event_log.h"
#include "runtime/metrics/progress.h"

namespace cohort::tools {
namespace {

using nlohmann::ordered_json;

constexpr int kMostEvents = 6;
constexpr int kLeastRows = 3;  // of members, where there is room for little

std::string StateName(const v1::Member& member) {
  if (member.evicted()) return "out";
  if (member.leave_requested() && member.state() == v1::MEMBER_STATE_LIVE) return "leaving";
  absl::string_view name = v1::MemberState_Name(member.state());
  absl::ConsumePrefix(&name, "MEMBER_STATE_");
  return absl::AsciiStrToLower(name);
}

std::string Rate(double per_second) {
  if (per_second >= 999'500) return absl::StrFormat("%.1fM", per_second / 1e6);
  if (per_second >= 999.5) return absl::StrFormat("%.1fk", per_second / 1e3);
  return absl::StrFormat("%.0f", per_second);
}

std::string Clock(double time) {
  return absl::FormatTime("%H:%M:%S", absl::UnixEpoch() + absl::Seconds(time), absl::LocalTimeZone());
}

// What a terminal would take for a command, and what is no text, has no place on it.
std::string Printable(absl::string_view text) {
  std::string clean(text);
  for (char& c : clean) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return clean;
}

// At most so many columns; whole characters of UTF-8.
std::string Cut(const std::string& text, int width) {
  if (width <= 0) return "";
  size_t end = 0;
  for (int columns = 0; end < text.size(); ++columns) {
    if (columns == width) return text.substr(0, end);
    do ++end;
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80);
  }
  return text;
}

// Cut, with a mark that it was.
std::string Fit(const std::string& text, int width) {
  std::string cut = Cut(text, width);
  if (cut.size() < text.size() && width > 1) cut = Cut(text, width - 1) + "~";
  return cut;
}

int CountOf(const v1::DescribeResponse& job, v1::MemberState state) {
  return static_cast<int>(std::count_if(job.members().begin(), job.members().end(),
                                        [&](const v1::Member& member) { return member.state() == state; }));
}

std::string Summary(const TopView& view) {
  const v1::DescribeResponse& job = view.job;
  std::string text = absl::StrFormat("step %d   %s tokens/s   %d live", job.step(),
                                     Rate(job.tokens_per_second()), CountOf(job, v1::MEMBER_STATE_LIVE));
  const auto add = [&](int count, const char* what) {
    if (count > 0) absl::StrAppend(&text, ", ", count, " ", what);
  };
  add(CountOf(job, v1::MEMBER_STATE_EXPIRED), "expired");
  add(CountOf(job, v1::MEMBER_STATE_LEFT), "left");
  add(job.waiting_size(), job.waiting_size() == 1 ? "newcomer waiting" : "newcomers waiting");
  return text;
}

std::string EpochWords(const TopView& view) {
  const v1::Epoch& epoch = view.job.epoch();
  if (epoch.number() == 0) return "no epoch yet";
  return absl::StrCat("epoch ", epoch.number(), ", from step ", epoch.step(), ": ",
                      view.mesh.empty() ? absl::StrCat(epoch.members_size(), " members") : view.mesh);
}

std::string Away(const TopView& view) {
  return absl::StrFormat("the coordinator at %s is away since %.0f s; training goes on without it",
                         view.coordinator, view.away_seconds);
}

std::string Heading(int name_width) {
  return absl::StrFormat("%5s %-*s %-12s %8s %-8s %8s %-18s %8s %8s %7s", "RANK", name_width, "NAME", "HOST",
                         "PID", "STATE", "STEP", "PHASE", "COMPUTE", "WAIT", "LEASE");
}

std::string Row(const v1::Member& member, int name_width) {
  const v1::StepReport& report = member.report();
  const bool told = member.report_age_seconds() >= 0;
  const auto seconds = [&](double value) { return told ? absl::StrFormat("%.3f", value) : std::string("-"); };
  std::string row = absl::StrFormat(
      "%5s %-*s %-12s %8d %-8s %8s %-18s %8s %8s %6.1fs",
      member.rank() < 0 ? "-" : absl::StrCat(member.rank()), name_width, Fit(member.name(), name_width),
      Fit(member.host(), 12), member.pid(), StateName(member), told ? absl::StrCat(report.step()) : "-",
      Fit(report.phase().empty() ? "-" : report.phase(), 18), seconds(report.compute_seconds()),
      seconds(report.wait_seconds()), member.lease_left_seconds());
  if (!member.verdict().empty()) absl::StrAppend(&row, "  ", member.verdict());
  return Printable(row);
}

std::vector<const v1::Member*> InOrder(const v1::DescribeResponse& job) {
  std::vector<const v1::Member*> members;
  for (const v1::Member& member : job.members()) members.push_back(&member);
  const auto key = [](const v1::Member* member) {
    // Who has left, or is out, is of no more interest than who waits.
    const int place = !member->verdict().empty()                 ? 0
                      : member->rank() >= 0                      ? 1
                      : member->state() == v1::MEMBER_STATE_LIVE ? 2
                                                                 : 3;
    return std::make_tuple(place, member->rank(), member->id());
  };
  std::sort(members.begin(), members.end(),
            [&](const v1::Member* a, const v1::Member* b) { return key(a) < key(b); });
  return members;
}

}  // namespace

std::string MeshWords(const std::string& arrangement) {
  v1::ElasticMesh mesh;
  std::string bytes;
  if (arrangement.empty() || !absl::Base64Unescape(arrangement, &bytes) || !mesh.ParseFromString(bytes))
    return "";
  const auto model = runtime::ModelConfigFrom(mesh.config());
  if (!model.ok() || !parallel::ArrangementOf(mesh, *model).ok()) return "";
  return parallel::DebugString(mesh, *model);
}

std::string EventLine(const v1::Event& event) {
  std::string line =
      absl::StrFormat("%s %-21s %s", Clock(event.time()), cluster::KindName(event.kind()), event.words());
  if (event.seconds() > 0) absl::StrAppendFormat(&line, " (%.2f s)", event.seconds());
  return Printable(line);
}

std::string TopLine(const TopView& view) {
  if (view.away_seconds >= 0) return Away(view);
  return Printable(absl::StrCat(Clock(view.job.time()), " ", EpochWords(view), "; ", Summary(view)));
}

std::vector<std::string> TopScreen(const TopView& view, int width, int height) {
  const v1::DescribeResponse& job = view.job;
  std::vector<std::string> lines;
  const double up = std::max(0.0, job.time() - job.started_time());
  lines.push_back(absl::StrCat("cohort top  ", Clock(job.time()), "  job ",
                               job.job().empty() ? "(none)" : job.job(), "  coordinator ", job.incarnation(),
                               " at ", view.coordinator, ", up ", runtime::DurationText(up)));
  if (view.away_seconds >= 0) lines.push_back(Away(view));
  lines.push_back(EpochWords(view));
  if (!job.epoch().why().empty()) lines.push_back(absl::StrCat("  why: ", job.epoch().why()));
  lines.push_back(Summary(view));
  lines.emplace_back();

  const std::vector<const v1::Member*> members = InOrder(job);
  size_t name_width = 4;
  for (const v1::Member* member : members) name_width = std::max(name_width, member->name().size());
  const int names = static_cast<int>(std::min<size_t>(name_width, 24));
  lines.push_back(Heading(names));
  int events = std::min(job.events_size(), kMostEvents);
  const int room = height - static_cast<int>(lines.size());
  while (events > 0 && room - events - 2 < std::min(kLeastRows, static_cast<int>(members.size()))) --events;
  const int below = events > 0 ? events + 2 : 0;
  auto rows = std::min(members.size(), static_cast<size_t>(std::max(0, room - below)));
  if (rows < members.size() && rows > 0) --rows;  // for the line that says so
  for (size_t i = 0; i < rows; ++i) lines.push_back(Row(*members[i], names));
  if (rows < members.size()) lines.push_back(absl::StrCat("      and ", members.size() - rows, " more"));
  if (events > 0) {
    lines.emplace_back();
    lines.push_back("LATEST EVENTS");
    for (int i = job.events_size() - events; i < job.events_size(); ++i)
      lines.push_back(EventLine(job.events(i)));
  }
  if (static_cast<int>(lines.size()) > height) lines.resize(static_cast<size_t>(std::max(0, height)));
  for (std::string& line : lines) line = Cut(Printable(line), width);
  return lines;
}

std::string TopJson(const TopView& view) {
  const v1::DescribeResponse& job = view.job;
  ordered_json json = {{"coordinator", view.coordinator}, {"away", view.away_seconds >= 0}};
  if (view.away_seconds >= 0) json["away_seconds"] = view.away_seconds;
  json["job"] = job.job();
  json["incarnation"] = job.incarnation();
  json["time"] = job.time();
  json["epoch"] = {{"number", job.epoch().number()},
                   {"members", job.epoch().members_size()},
                   {"step", job.epoch().step()},
                   {"mesh", view.mesh},
                   {"why", job.epoch().why()}};
  json["step"] = job.step();
  json["tokens_per_second"] = job.tokens_per_second();
  json["newcomers_waiting"] = job.waiting_size();
  json["members"] = ordered_json::array();
  for (const v1::Member* member : InOrder(job)) {
    const v1::StepReport& report = member->report();
    ordered_json row = {{"name", member->name()},
                        {"host", member->host()},
                        {"pid", member->pid()},
                        {"rank", member->rank()},
                        {"state", StateName(*member)},
                        {"verdict", member->verdict()},
                        {"lease_left_seconds", member->lease_left_seconds()}};
    if (member->report_age_seconds() >= 0) {
      row["step"] = report.step();
      row["phase"] = report.phase();
      row["compute_seconds"] = report.compute_seconds();
      row["wait_seconds"] = report.wait_seconds();
      row["report_age_seconds"] = member->report_age_seconds();
    }
    json["members"].push_back(std::move(row));
  }
  json["events"] = ordered_json::array();
  for (const v1::Event& event : job.events()) {
    json["events"].push_back(ordered_json::parse(cluster::ToJson(event)));
  }
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace cohort::tools
