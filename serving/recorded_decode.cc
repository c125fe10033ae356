#include "serving/recorded_decode.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "comm/check.h"
#include "serving/batch_plan.h"

namespace cohort::serving {

int64_t RecordedDecode::PaddingPages(const RunnerInfo& info, int64_t max_sequences) {
  return (max_sequences + info.page_size - 1) / info.page_size;
}

bool RecordedDecode::Possible(const runtime::Decoder& decoder) {
  return decoder.device().records() && decoder.paged_is_recordable();
}

bool RecordedDecode::Takes(const RankStep& step) {
  const size_t sequences = step.context_lengths.size();
  if (sequences == 0 || step.tokens.size() != sequences || step.rows.size() != sequences) return false;
  for (size_t s = 0; s < sequences; ++s) {
    const auto at = static_cast<int32_t>(s);
    if (step.query_offsets[s] != at || step.rows[s].row != at || step.rows[s].target) return false;
  }
  return true;
}

absl::StatusOr<int64_t> RecordedDecode::MeasureBytes(runtime::Decoder& decoder, const RunnerInfo& info,
                                                     int64_t max_sequences) {
  runtime::Device& device = decoder.device();
  runtime::KvCache padding = decoder.MakeCache(PaddingPages(info, max_sequences), info.page_size);
  RecordedDecode all(decoder, padding, info, max_sequences, /*first_padding_slot=*/0);
  const size_t before = device.allocated_bytes();
  for (int64_t sequences = 1; sequences < 2 * max_sequences; sequences *= 2) {
    Bucket& bucket = all.BucketFor(std::min(sequences, max_sequences));
    bucket.buffers.Write(RankStep(), {});
    COHORT_RETURN_IF_ERROR(all.Record(bucket));
  }
  device.Synchronize();
  return static_cast<int64_t>(device.allocated_bytes() - before);
}

RecordedDecode::RecordedDecode(runtime::Decoder& decoder, runtime::KvCache& cache, const RunnerInfo& info,
                               int64_t max_sequences)
    : RecordedDecode(decoder, cache, info, max_sequences, int64_t{info.pages} * info.page_size) {}

RecordedDecode::RecordedDecode(runtime::Decoder& decoder, runtime::KvCache& cache, const RunnerInfo& info,
                               int64_t max_sequences, int64_t first_padding_slot)
    : decoder_(decoder),
      cache_(cache),
      info_(info),
      max_sequences_(max_sequences),
      first_padding_slot_(first_padding_slot) {}

RecordedDecode::Bucket& RecordedDecode::BucketFor(int64_t sequences) {
  COHORT_CHECK(sequences <= max_sequences_, "a step of %ld sequences of at most %ld",
               static_cast<long>(sequences), static_cast<long>(max_sequences_));
  const auto power = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(sequences)));
  const int64_t size = std::min(power, max_sequences_);
  const auto found = buckets_.find(size);
  if (found != buckets_.end()) return found->second;
  const int64_t width = std::min<int64_t>(PagesFor(info_.context_length, info_.page_size), info_.pages);
  const StepShape shape = {
      .tokens = size, .sequences = size, .table_width = width, .rows = size, .drawn = size};
  return buckets_
      .emplace(size,
               Bucket{.buffers = StepBuffers(decoder_.device(), shape, info_.page_size, first_padding_slot_),
                      .logits = {},
                      .recording = nullptr})
      .first->second;
}

absl::Status RecordedDecode::Compute(Bucket& bucket) {
  COHORT_ASSIGN_OR_RETURN(bucket.logits, decoder_.ForwardPaged(bucket.buffers.batch(), cache_));
  bucket.buffers.DrawFrom(bucket.logits);
  return absl::OkStatus();
}

// Computes the step once more than needed, which changes nothing: it writes the same keys and values both times.
absl::Status RecordedDecode::Record(Bucket& bucket) {
  absl::Status status;
  bucket.recording = decoder_.device().Record([&] { status.Update(Compute(bucket)); });
  COHORT_RETURN_IF_ERROR(status);
  COHORT_CHECK(bucket.recording != nullptr, "%s says that it records, and did not",
               decoder_.device().name().c_str());
  return absl::OkStatus();
}

absl::StatusOr<StepOutput> RecordedDecode::Run(const RankStep& step) {
  const size_t sequences = step.rows.size();
  Bucket& bucket = BucketFor(static_cast<int64_t>(sequences));
  std::vector<int> all(sequences);
  std::iota(all.begin(), all.end(), 0);
  bucket.buffers.Write(step, all);
  if (bucket.recording == nullptr) COHORT_RETURN_IF_ERROR(Record(bucket));
  bucket.recording->Replay();
  StepOutput output{.logits = bucket.logits, .drawn = {}};
  for (const Draw& draw : bucket.buffers.Read(sequences)) {
    const WantedRow& row = step.rows[output.drawn.size()];
    output.drawn.push_back(PlaceOf(row) == RowPlace::kDevice ? std::optional<Draw>(draw) : std::nullopt);
  }
  return output;
}

}  // namespace cohort::serving
