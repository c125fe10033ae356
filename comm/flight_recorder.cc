#include "comm/flight_recorder.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "comm/doorbell.h"
#include "comm/policy.h"
#include "comm/ticks.h"

namespace cohort::comm {
namespace {

std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppendFormat(&quoted, "\\u%04x", c);
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

std::string List(const std::vector<int>& numbers) {
  return absl::StrCat("[", absl::StrJoin(numbers, ","), "]");
}

int64_t UnixNanos() {
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

FlightRecorder::FlightRecorder() : ring_(policy::kFlightOperations) {}

void FlightRecorder::OnGroup(uint32_t context, uint32_t epoch, const std::vector<int>& members) {
  groups_.push_back({context, epoch, 0, members});
  if (groups_.size() > policy::kFlightGroups) groups_.pop_front();
}

void FlightRecorder::Note(uint64_t number, std::vector<int> awaits, const absl::Status& status) {
  if (remarks_.size() >= policy::kFlightRemarks) remarks_.pop_front();
  std::string message(status.message().substr(0, policy::kFlightMessageBytes));
  remarks_.push_back({number, std::move(awaits), std::move(message)});
}

FlightRecord FlightRecorder::Record() const {
  FlightRecord record;
  record.pid = getpid();
  record.monotonic = NowNanos();
  record.unix_time = UnixNanos();
  record.groups.assign(groups_.begin(), groups_.end());
  std::map<uint32_t, FlightGroup*> groups;  // contexts are not used twice
  for (FlightGroup& group : record.groups) groups[group.context] = &group;
  const uint64_t oldest = next_ - std::min<uint64_t>(next_, policy::kFlightOperations);
  for (uint64_t number = oldest; number < next_; ++number) {
    const Entry& entry = ring_[number % policy::kFlightOperations];
    FlightOperation operation;
    operation.number = number;
    operation.context = entry.key.context & ~kPointToPointContext;
    operation.sequence = entry.key.sequence;
    const auto group = groups.find(operation.context);
    if (group != groups.end()) {
      operation.epoch = group->second->epoch;
      if (entry.peer < 0) group->second->begun = std::max(group->second->begun, entry.key.sequence + 1);
    }
    operation.peer = entry.peer;
    operation.tag = entry.key.step;
    operation.sends = entry.sends;
    operation.operation = Name(entry.signature.operation);
    operation.dtype = Name(entry.signature.dtype);
    operation.reduce = Name(entry.signature.reduce);
    operation.algorithm = entry.algorithm == nullptr ? "" : entry.algorithm;
    operation.count = entry.signature.count;
    operation.digest = entry.signature.digest;
    operation.codec = entry.signature.codec;
    operation.began = NanosOfTicks(entry.began);
    if (entry.ended != 0) operation.ended = NanosOfTicks(entry.ended);
    if (entry.ended != 0) operation.status = absl::StatusCodeToString(entry.code);
    record.operations.push_back(std::move(operation));
  }
  for (const Remark& remark : remarks_) {
    if (remark.number < oldest) continue;
    FlightOperation& operation = record.operations[remark.number - oldest];
    operation.awaits = remark.awaits;
    operation.message = remark.message;
  }
  return record;
}

std::string ToJson(const FlightRecord& record) {
  const auto wall = [&](int64_t monotonic) {
    const absl::Time time = absl::FromUnixNanos(record.unix_time - record.monotonic + monotonic);
    return Quoted(absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", time, absl::UTCTimeZone()));
  };
  std::string text = absl::StrCat("{\"cohort_flight_record\":1,\"rank\":", record.rank,
                                  ",\"size\":", record.size, ",\"host\":", Quoted(record.host),
                                  ",\"pid\":", record.pid, ",\"monotonic_ns\":", record.monotonic,
                                  ",\"unix_ns\":", record.unix_time, ",\n\"groups\":[");
  const char* comma = "\n";
  for (const FlightGroup& group : record.groups) {
    absl::StrAppend(&text, comma, "{\"group\":", group.context, ",\"epoch\":", group.epoch,
                    ",\"begun\":", group.begun, ",\"members\":", List(group.members), "}");
    comma = ",\n";
  }
  absl::StrAppend(&text, "],\n\"operations\":[");
  comma = "\n";
  for (const FlightOperation& operation : record.operations) {
    absl::StrAppend(&text, comma, "{\"number\":", operation.number, ",\"group\":", operation.context,
                    ",\"epoch\":", operation.epoch, ",\"sequence\":", operation.sequence,
                    ",\"operation\":", Quoted(operation.operation), ",\"count\":", operation.count,
                    ",\"dtype\":", Quoted(operation.dtype));
    absl::StrAppend(&text, ",\"reduce\":", Quoted(operation.reduce), ",\"codec\":", operation.codec,
                    ",\"digest\":", operation.digest, ",\"algorithm\":", Quoted(operation.algorithm));
    if (operation.peer >= 0) {
      absl::StrAppend(&text, ",\"peer\":", operation.peer, ",\"tag\":", operation.tag,
                      ",\"sends\":", operation.sends ? "true" : "false");
    }
    absl::StrAppend(&text, ",\"began_ns\":", operation.began, ",\"began\":", wall(operation.began));
    if (operation.ended != 0) {
      absl::StrAppend(&text, ",\"ended_ns\":", operation.ended, ",\"ended\":", wall(operation.ended),
                      ",\"status\":", Quoted(operation.status));
    }
    if (!operation.message.empty()) absl::StrAppend(&text, ",\"message\":", Quoted(operation.message));
    if (!operation.awaits.empty()) absl::StrAppend(&text, ",\"awaits\":", List(operation.awaits));
    text += '}';
    comma = ",\n";
  }
  return text + "]}\n";
}

}  // namespace cohort::comm
