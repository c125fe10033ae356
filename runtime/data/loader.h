// Which tokens a training step or an evaluation sees.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/data/dataset.h"

namespace cohort::runtime {

// Tokens and what is to be predicted after each, `count` samples one after another, each of its length. A negative target
// is not predicted.
struct SampleBatch {
  int64_t count = 0;
  std::vector<int64_t> lengths;
  std::vector<int32_t> tokens;
  std::vector<int32_t> targets;
};

struct TrainLoaderOptions {
  int64_t sequence_length = 0;
  int64_t global_batch = 0;  // samples in a step, over all ranks
  uint64_t seed = 0;
  // Samples are whole documents, those of more than sequence_length tokens in pieces; else windows of the tokens of all.
  bool documents = false;
};

// Where a run is in its data; a checkpoint keeps it as JSON. All of the position is the step.
struct LoaderState {
  int64_t step = 0;  // the next one
  TrainLoaderOptions options;
  std::string data_fingerprint;

  std::string ToJson() const;
  static absl::StatusOr<LoaderState> FromJson(const std::string& text);
};

// Samples are windows of sequence_length + 1 tokens; neighbours share one token, so that each token but the
// first is a target once. With options.documents they are cut out of each document alone: a sample is sequence_length
// long or ends with its document, and the first token of a document is no target. Every epoch has each sample once, in an order that is a pure function of (seed,
// epoch). So the samples of a step depend on neither the number of ranks nor where a run was stopped, and any
// rank can ask for any of them. Immutable and thread-safe.
class TrainLoader {
 public:
  // InvalidArgument where an option is not positive or the data is shorter than one sample.
  static absl::StatusOr<TrainLoader> Create(std::shared_ptr<const TokenDataset> dataset,
                                            TrainLoaderOptions options);

  // Samples [begin, begin + count) of the step's global batch. DataLoss where the data is damaged.
  absl::StatusOr<SampleBatch> GetBatch(int64_t step, int64_t begin, int64_t count) const;

  // Tokens of each of these samples, without reading them.
  std::vector<int64_t> Lengths(int64_t step, int64_t begin, int64_t count) const;

  int64_t samples_per_epoch() const { return samples_; }
  // Which window of the data the global sample number `sample` (step * global_batch + place) is.
  int64_t WindowOf(int64_t sample) const;
  // The epoch in which a step begins.
  int64_t EpochOf(int64_t step) const { return step * options_.global_batch / samples_; }
  const TokenDataset& dataset() const { return *dataset_; }

  LoaderState StateAt(int64_t step) const;
  // Whether a run can go on from `state` exactly: FailedPrecondition naming what differs, if anything.
  absl::Status CheckResume(const LoaderState& state) const;

 private:
  // Tokens that predict: [begin, begin + length); the targets are one further.
  struct Window {
    int64_t begin, length;
  };
  TrainLoader(std::shared_ptr<const TokenDataset> dataset, TrainLoaderOptions options);
  Window WindowAt(int64_t window) const;

  std::shared_ptr<const TokenDataset> dataset_;
  TrainLoaderOptions options_;
  std::vector<int64_t>
      first_window_;  // of each document, and at the end of all; with options_.documents only
  int64_t samples_;
};

// Windows over all of a dataset in order, without overlap. Every token is a target exactly once: before the
// first stands an EOS, and what is missing of the last window is EOS with negative targets. So the sum of the
// losses over all windows, divided by text_bytes * ln 2, is the bits per byte. Immutable and thread-safe.
class EvaluationLoader {
 public:
  static absl::StatusOr<EvaluationLoader> Create(std::shared_ptr<const TokenDataset> dataset,
                                                 int64_t sequence_length);

  int64_t num_windows() const { return windows_; }
  int64_t text_bytes() const { return dataset_->text_bytes(); }
  // Windows [begin, begin + count), which must exist.
  absl::StatusOr<SampleBatch> GetWindows(int64_t begin, int64_t count) const;
  const TokenDataset& dataset() const { return *dataset_; }

 private:
  EvaluationLoader(std::shared_ptr<const TokenDataset> dataset, int64_t sequence_length);
  std::shared_ptr<const TokenDataset> dataset_;
  int64_t sequence_length_;
  int64_t windows_;
};

}  // namespace cohort::runtime
