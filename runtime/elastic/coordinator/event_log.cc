#include "runtime/elastic/coordinator/event_log.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "comm/check.h"
#include "runtime/file.h"

namespace cohort::cluster {

using nlohmann::ordered_json;

std::string KindName(v1::EventKind kind) {
  absl::string_view name = v1::EventKind_Name(kind);
  absl::ConsumePrefix(&name, "EVENT_KIND_");
  return absl::AsciiStrToLower(name);
}

std::string ToJson(const v1::Event& event) {
  const absl::Time time = absl::UnixEpoch() + absl::Seconds(event.time());
  ordered_json json = {{"revision", event.revision()},
                       {"time", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone())},
                       {"epoch", event.epoch()},
                       {"step", event.step()}};
  if (!event.member().empty()) json["member"] = event.member();
  json["kind"] = KindName(event.kind());
  json["words"] = event.words();
  if (event.seconds() > 0) json["seconds"] = event.seconds();
  if (!event.subject().empty()) json["subject"] = event.subject();
  if (event.has_rank()) json["rank"] = event.rank();
  if (!event.host().empty()) json["host"] = event.host();
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

absl::StatusOr<EventLog> EventLog::Open(const std::string& path) {
  uint64_t written = 0;
  const absl::StatusOr<std::string> text = runtime::ReadFile(path);
  if (text.ok()) {
    const std::vector<absl::string_view> lines = absl::StrSplit(*text, '\n', absl::SkipEmpty());
    // The last whole line; a crash can have torn the very last.
    for (auto line = lines.rbegin(); line != lines.rend() && written == 0; ++line) {
      const auto json = nlohmann::json::parse(line->begin(), line->end(), nullptr, false);
      if (json.is_object()) written = json.value("revision", uint64_t{0});
    }
  } else if (!absl::IsNotFound(text.status())) {
    return text.status();
  }
  COHORT_ASSIGN_OR_RETURN(auto writer, runtime::JsonLinesWriter::Open(path));
  return EventLog(std::move(writer), written);
}

absl::Status EventLog::CatchUp(const ClusterState& state) {
  // A file of another state, which was moved away: this one's events are all new.
  if (!std::exchange(looked_, true) && written_ > state.last_revision()) written_ = 0;
  if (written_ >= state.last_revision()) return absl::OkStatus();
  for (const v1::Event& event : state.EventsFrom(written_ + 1)) {
    COHORT_RETURN_IF_ERROR(writer_.Add(ToJson(event)));
    written_ = event.revision();
  }
  return absl::OkStatus();
}

}  // namespace cohort::cluster
