// Runs steps on a decoder of this process.
#pragma once

#include <memory>
#include <vector>

#include "runtime/model/decoder.h"
#include "serving/model_runner.h"
#include "serving/recorded_decode.h"
#include "serving/row_results.h"
#include "serving/sampler.h"

namespace cohort::serving {

struct CacheOptions {
  int32_t page_size = 0;  // tokens; 0: policy::kPageSize
  int64_t bytes = 0;      // memory for keys and values; 0: policy::kCacheBytes
  bool record = true;     // decode steps, where device and model allow it
};

// The cache is made at once and is never larger than `max_sequences` sequences of full length need. What recordings of
// decode steps will keep is measured before, and must be free beside it. The decoder must outlive the runner, and nobody
// else may use it meanwhile.
class DecoderRunner final : public ModelRunner {
 public:
  // INVALID_ARGUMENT where the memory does not hold a single page; RESOURCE_EXHAUSTED where so much is not free.
  static absl::StatusOr<std::unique_ptr<DecoderRunner>> Create(runtime::Decoder& decoder,
                                                               CacheOptions options, int64_t max_sequences);

  RunnerInfo info() const override { return info_; }
  absl::StatusOr<StepResult> Run(const Step& step) override;
  // One rank's part. Calls the decoder also where there are no tokens, because experts on other ranks wait
  // for every rank.
  absl::StatusOr<RankResult> RunRank(const RankStep& step);

 private:
  DecoderRunner(runtime::Decoder& decoder, RunnerInfo info, int64_t padding_pages);
  // Any step, as it comes.
  absl::StatusOr<StepOutput> Compute(const RankStep& step);

  runtime::Decoder& decoder_;
  const RunnerInfo info_;
  runtime::KvCache cache_;
  std::vector<Sampler> samplers_;  // one a thread: rows do not depend on each other
  std::unique_ptr<RecordedDecode> recorded_;
};

}  // namespace cohort::serving
