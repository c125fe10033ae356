// Decode steps that were recorded once and are replayed (Device::Record): on CUDA, graphs.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/device/recording.h"
#include "runtime/model/decoder.h"
#include "serving/model_runner.h"
#include "serving/row_results.h"
#include "serving/step_buffers.h"

namespace cohort::serving {

// One recording for each number of sequences that is a power of two, and for the largest there can be: a step takes the
// next one that has room and is padded. What changes between steps lies in the buffers of that recording, so a step is
// one copy to the device, one replay, and one copy back, which waits for it. The page table is as wide as the longest
// sequence could be. Recordings are made by the first step of their size, which is computed twice for it, and keep
// memory of their own (MeasureBytes).
class RecordedDecode {
 public:
  // Pages that padding needs behind the `info.pages` of the cache.
  static int64_t PaddingPages(const RunnerInfo& info, int64_t max_sequences);
  // Whether steps of this model can be recorded.
  static bool Possible(const runtime::Decoder& decoder);
  // The memory of the device that recordings of all sizes keep, with their buffers: measured by making them, of steps of
  // padding, in pages that are there for this only. What the driver has for graphs themselves is not counted.
  static absl::StatusOr<int64_t> MeasureBytes(runtime::Decoder& decoder, const RunnerInfo& info,
                                              int64_t max_sequences);
  // Whether this step can: every sequence has one new token, and a row is wanted of each and drawn.
  static bool Takes(const RankStep& step);

  RecordedDecode(runtime::Decoder& decoder, runtime::KvCache& cache, const RunnerInfo& info,
                 int64_t max_sequences);

  // `step`: one that it takes, of at most max_sequences.
  absl::StatusOr<StepOutput> Run(const RankStep& step);

 private:
  struct Bucket {
    StepBuffers buffers;
    runtime::Tensor logits;  // [sequences, V], where the last replay left them
    std::unique_ptr<runtime::Recording> recording;
  };
  RecordedDecode(runtime::Decoder& decoder, runtime::KvCache& cache, const RunnerInfo& info,
                 int64_t max_sequences, int64_t first_padding_slot);
  Bucket& BucketFor(int64_t sequences);
  absl::Status Compute(Bucket& bucket);
  absl::Status Record(Bucket& bucket);

  runtime::Decoder& decoder_;
  runtime::KvCache& cache_;
  const RunnerInfo info_;
  const int64_t max_sequences_;
  const int64_t first_padding_slot_;
  std::map<int64_t, Bucket> buckets_;  // by sequences
};

}  // namespace cohort::serving
