// metrics.jsonl: one JSON object a step.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/checkpoint/file.h"

namespace cohort::runtime {

// Appends objects to a file of JSON lines. Not thread-safe.
class JsonLines {
 public:
  // Goes on with the file after `step`: rows of later steps, which a run did before it was killed and resumed
  // from an earlier checkpoint, and a line that was not written to its end are taken out. step 0: the file
  // begins anew.
  static absl::StatusOr<JsonLines> Open(const std::string& path, int64_t step);

  // `object` is one JSON object without line breaks. RESOURCE_EXHAUSTED where the disk is full.
  absl::Status Write(absl::string_view object);

 private:
  explicit JsonLines(OutputFile file) : file_(std::move(file)) {}
  OutputFile file_;
};

}  // namespace cohort::runtime
