// The flight recorder: the last operations of an engine, for finding out afterwards who was late and who called
// something else (flight_diagnosis.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "comm/operation.h"
#include "comm/policy.h"
#include "comm/transport/message.h"

namespace cohort::comm {

// What a record says of one operation. Ranks are world ranks.
struct FlightOperation {
  uint64_t number = 0;   // how many operations this rank had begun before
  uint32_t context = 0;  // of the group
  uint32_t epoch = 0;
  uint32_t sequence = 0;  // of the operation in the group; of a send/recv, among those of its peer and tag
  int peer = -1;          // of a send/recv
  uint32_t tag = 0;
  bool sends = false;
  std::string operation, dtype, reduce, algorithm;  // algorithm: empty where none was chosen
  uint64_t count = 0;
  uint32_t digest = 0;  // of the counts of each rank and the root
  uint32_t codec = 0;
  int64_t began = 0, ended = 0;  // nanoseconds of FlightRecord::monotonic; ended 0: in flight
  std::string status;            // the name of its code; empty: in flight
  std::string message;           // of a failure
  std::vector<int> awaits;       // in flight, or when it failed
};

struct FlightGroup {
  uint32_t context = 0;
  uint32_t epoch = 0;
  uint32_t begun = 0;  // collective operations
  std::vector<int> members;
};

// What one rank knows at one moment.
struct FlightRecord {
  int rank = 0;
  int size = 1;
  std::string host;
  int64_t pid = 0;
  int64_t monotonic = 0, unix_time = 0;     // nanoseconds, of the same moment
  std::vector<FlightGroup> groups;          // the latest, also past ones
  std::vector<FlightOperation> operations;  // in the order in which they began
};

// As JSON text; tools/cohort/flight_file.h reads it.
std::string ToJson(const FlightRecord& record);

// A ring that holds the last operations. Always on: beginning and ending an operation that succeeds are a few stores
// into memory that is there. Under the engine's lock; copies are snapshots.
class FlightRecorder {
 public:
  FlightRecorder();

  void OnGroup(uint32_t context, uint32_t epoch, const std::vector<int>& members);

  // `algorithm` lives for ever (a name in a table) or is null. Times are NowTicks. What it returns stands for the
  // operation below.
  uint64_t Begin(const MessageKey& key, const Signature& signature, const char* algorithm, int peer,
                 bool sends, int64_t now) {
    const uint64_t number = next_++;
    Entry& entry = ring_[number % policy::kFlightOperations];
    entry.number = number;
    entry.began = now;
    entry.ended = 0;
    entry.signature = signature;
    entry.algorithm = algorithm;
    entry.key = key;
    entry.peer = peer;
    entry.sends = sends;
    entry.code = absl::StatusCode::kOk;
    return number;
  }
  void End(uint64_t number, absl::StatusCode code, int64_t now) {
    Entry& entry = ring_[number % policy::kFlightOperations];
    if (entry.number != number) return;  // so many have begun since
    entry.ended = now;
    entry.code = code;
  }
  // Whom the operation awaits, and why it fails where it does.
  void Note(uint64_t number, std::vector<int> awaits, const absl::Status& status);

  // Without rank, size and host.
  FlightRecord Record() const;

 private:
  struct Entry {
    uint64_t number = UINT64_MAX;
    int64_t began = 0;  // NowTicks
    int64_t ended = 0;
    Signature signature;
    const char* algorithm = nullptr;
    MessageKey key;
    int32_t peer = -1;
    bool sends = false;
    absl::StatusCode code = absl::StatusCode::kOk;
  };
  struct Remark {
    uint64_t number;
    std::vector<int> awaits;
    std::string message;
  };

  std::vector<Entry> ring_;
  uint64_t next_ = 0;
  std::deque<Remark> remarks_;      // the latest
  std::deque<FlightGroup> groups_;  // the latest
};

}  // namespace cohort::comm
