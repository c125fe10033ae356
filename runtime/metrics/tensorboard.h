// TensorBoard event files: scalars over steps.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/file.h"

namespace cohort::runtime {

struct Scalar {
  std::string tag;  // "train/loss"
  double value;
};

// One new event file in a folder; a resumed run makes another one beside it, and TensorBoard
// shows both as one run. Each Add is one write of whole records, so that a kill loses no more
// than the last step. Not thread-safe.
class TensorBoardWriter {
 public:
  // Makes the folder where it does not exist.
  static absl::StatusOr<TensorBoardWriter> Create(const std::string& folder);

  // A full disk is RESOURCE_EXHAUSTED: this record is lost, later ones may be tried.
  absl::Status Add(int64_t step, const std::vector<Scalar>& scalars);

  const std::string& path() const { return file_.path(); }

 private:
  explicit TensorBoardWriter(OutputFile file) : file_(std::move(file)) {}
  OutputFile file_;
};

}  // namespace cohort::runtime
