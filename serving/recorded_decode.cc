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

RecordedDecode::RecordedDecode(runtime::Decoder& decoder, runtime::KvCache& cache, const RunnerInfo& info,
                               int64_t max_sequences)
    : decoder_(decoder), cache_(cache), info_(info), max_sequences_(max_sequences) {}

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
  const int64_t first_padding_slot = int64_t{info_.pages} * info_.page_size;
  return buckets_
      .emplace(size,
               Bucket{.buffers = StepBuffers(decoder_.device(), shape, info_.page_size, first_padding_slot),
                      .logits = {},
                      .recording = nullptr})
      .first->second;
}

absl::Status RecordedDecode::Compute(Bucket& bucket) {
  COHORT_ASSIGN_OR_RETURN(bucket.logits, decoder_.ForwardPaged(bucket.buffers.batch(), cache_));
  bucket.buffers.DrawFrom(bucket.logits);
  return absl::OkStatus();
}

absl::StatusOr<StepOutput> RecordedDecode::Run(const RankStep& step) {
  const size_t sequences = step.rows.size();
  Bucket& bucket = BucketFor(static_cast<int64_t>(sequences));
  std::vector<int> all(sequences);
  std::iota(all.begin(), all.end(), 0);
  bucket.buffers.Write(step, all);
  if (bucket.recording == nullptr) {
    // Computes the step once more, which changes nothing: it writes the same keys and values both times.
    absl::Status status;
    bucket.recording = decoder_.device().Record([&] { status.Update(Compute(bucket)); });
    COHORT_RETURN_IF_ERROR(status);
    COHORT_CHECK(bucket.recording != nullptr, "%s says that it records, and did not",
                 decoder_.device().name().c_str());
  }
  bucket.recording->Replay();
  StepOutput output{.logits = bucket.logits, .drawn = {}};
  for (const Draw& draw : bucket.buffers.Read(sequences)) {
    const WantedRow& row = step.rows[output.drawn.size()];
    output.drawn.push_back(PlaceOf(row) == RowPlace::kDevice ? std::optional<Draw>(draw) : std::nullopt);
  }
  return output;
}

}  // namespace cohort::serving
