// Where the coordinator's state outlives it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace cohort::cluster {

// A list of records, of which the first ones may have been replaced by what they amount to. Not thread-safe.
class Journal {
 public:
  struct Contents {
    std::string snapshot;              // empty: nothing was replaced
    std::vector<std::string> records;  // after it
    uint64_t next = 0;                 // the index of the next record
    std::string warning;               // what was mended, for people; empty: nothing
  };

  virtual ~Journal() = default;
  // For messages.
  virtual std::string name() const = 0;
  // Everything. DATA_LOSS: it is damaged; nothing was changed.
  virtual absl::StatusOr<Contents> Load() = 0;
  // Adds records from `index` on: all of them are durable when this returns OK. FAILED_PRECONDITION: `index` is not
  // the next one, or another coordinator has written since Load: this one must end. RESOURCE_EXHAUSTED: no room.
  // After an error call Load: what was there before is there, and nothing or all of the records.
  virtual absl::Status Append(uint64_t index, absl::Span<const std::string> records) = 0;
  // `snapshot` is what all records before `index`, the next one, amount to. Errors as of Append.
  virtual absl::Status Compact(uint64_t index, absl::string_view snapshot) = 0;
};

// In FOLDER/journal; one process at a time holds the folder: FAILED_PRECONDITION names the other. Makes the folder
// where it is not there.
absl::StatusOr<std::unique_ptr<Journal>> OpenFileJournal(const std::string& folder);

// In etcd (v3, over its JSON gateway) below PREFIX. `place` is HOST:PORT[,HOST:PORT...]/PREFIX. The last one that has
// written holds it: others are refused at their next write.
absl::StatusOr<std::unique_ptr<Journal>> OpenEtcdJournal(const std::string& place);

// FOLDER or etcd://HOST:PORT/PREFIX.
absl::StatusOr<std::unique_ptr<Journal>> OpenJournal(const std::string& state);
// Whether that is a folder.
bool IsFolder(const std::string& state);

// Several records as one text, and back. False: it is no such text.
std::string PackRecords(absl::Span<const std::string> records);
bool UnpackRecords(absl::string_view text, std::vector<std::string>& records);

}  // namespace cohort::cluster
