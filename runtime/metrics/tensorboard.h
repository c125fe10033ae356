// TensorBoard event files: scalars that `tensorboard --logdir` draws.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "runtime/checkpoint/file.h"

namespace cohort::runtime {

// One events.out.tfevents.* file. Records are written whole and at once, so a killed run leaves a readable
// file. Not thread-safe.
class TensorBoardWriter {
 public:
  // Makes the folder and a new file in it; TensorBoard reads all files of a folder, so a resumed run adds
  // one.
  static absl::StatusOr<TensorBoardWriter> Create(const std::string& folder);

  // RESOURCE_EXHAUSTED where the disk is full.
  absl::Status AddScalars(int64_t step, absl::Span<const std::pair<absl::string_view, float>> scalars,
                          absl::Time time = absl::Now());

 private:
  explicit TensorBoardWriter(OutputFile file) : file_(std::move(file)) {}
  OutputFile file_;
};

// CRC-32C (Castagnoli) with the mask of the TFRecord format. Exposed for readers in tests.
uint32_t MaskedCrc32c(absl::string_view data);

}  // namespace cohort::runtime
