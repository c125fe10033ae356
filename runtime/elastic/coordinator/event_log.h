// Events as lines of JSON, for people and scripts.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "cohort/v1/cluster.pb.h"
#include "runtime/elastic/coordinator/cluster_state.h"
#include "runtime/metrics/jsonl.h"

namespace cohort::cluster {

// "member_joined" of EVENT_KIND_MEMBER_JOINED.
std::string KindName(v1::EventKind kind);
// {"revision": 3, "time": "2026-01-31T12:00:00.000Z", "epoch": 1, "step": 7, "member": "a", "kind": "straggler",
// "words": ..., "seconds": ..., "subject": ..., "rank": ..., "host": ...}; all but the first four, kind and words only where
// they are known.
std::string ToJson(const v1::Event& event);

// A file to which events are added. What the coordinator's state has and the file has not, because of a crash or a
// full disk, is added later. Not thread-safe.
class EventLog {
 public:
  static absl::StatusOr<EventLog> Open(const std::string& path);
  // Adds what is new in the state.
  absl::Status CatchUp(const ClusterState& state);

 private:
  EventLog(runtime::JsonLinesWriter writer, uint64_t written)
      : writer_(std::move(writer)), written_(written) {}
  runtime::JsonLinesWriter writer_;
  uint64_t written_;  // the last revision in the file
  bool looked_ = false;
};

}  // namespace cohort::cluster
