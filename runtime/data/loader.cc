#include "runtime/data/loader.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/data/permutation.h"

namespace cohort::runtime {
namespace {

SampleBatch NewBatch(int64_t count, int64_t sequence_length) {
  SampleBatch batch;
  batch.count = count;
  batch.sequence_length = sequence_length;
  batch.tokens.resize(static_cast<size_t>(count * sequence_length));
  batch.targets.resize(batch.tokens.size());
  return batch;
}

}  // namespace

std::string LoaderState::ToJson() const {
  return nlohmann::ordered_json{{"step", step},
                                {"seed", options.seed},
                                {"sequence_length", options.sequence_length},
                                {"global_batch", options.global_batch},
                                {"data_fingerprint", data_fingerprint}}
      .dump();
}

absl::StatusOr<LoaderState> LoaderState::FromJson(const std::string& text) {
  const nlohmann::json root = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  LoaderState state;
  const auto integer = [&](const char* key, auto* value) {
    const bool found = root.is_object() && root.contains(key) && root[key].is_number_integer();
    if (found) root[key].get_to(*value);
    return found;
  };
  const bool complete = integer("step", &state.step) && integer("seed", &state.options.seed) &&
                        integer("sequence_length", &state.options.sequence_length) &&
                        integer("global_batch", &state.options.global_batch);
  if (!complete || state.step < 0 || !root.contains("data_fingerprint") ||
      !root["data_fingerprint"].is_string()) {
    return absl::InvalidArgumentError(
        absl::StrCat("this is not the state of a data loader: ", text.substr(0, 200)));
  }
  state.data_fingerprint = root["data_fingerprint"].get<std::string>();
  return state;
}

TrainLoader::TrainLoader(std::shared_ptr<const TokenDataset> dataset, TrainLoaderOptions options)
    : dataset_(std::move(dataset)),
      options_(options),
      samples_((dataset_->num_tokens() - 1) / options.sequence_length) {}

absl::StatusOr<TrainLoader> TrainLoader::Create(std::shared_ptr<const TokenDataset> dataset,
                                                TrainLoaderOptions options) {
  if (options.sequence_length <= 0 || options.global_batch <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("the sequence length (", options.sequence_length,
                                                   ") and the global batch (", options.global_batch,
                                                   ") must be positive"));
  }
  if (dataset->num_tokens() <= options.sequence_length) {
    return absl::InvalidArgumentError(absl::StrCat("the data has ", dataset->num_tokens(),
                                                   " tokens, one sample needs ", options.sequence_length + 1,
                                                   "; use more text or a shorter sequence length"));
  }
  return TrainLoader(std::move(dataset), options);
}

int64_t TrainLoader::WindowOf(int64_t sample) const {
  const auto samples = static_cast<uint64_t>(samples_);
  const auto epoch = static_cast<uint64_t>(sample) / samples;
  const RandomPermutation order(samples, options_.seed, RandomPurpose::kDataOrder, epoch);
  return static_cast<int64_t>(order(static_cast<uint64_t>(sample) % samples));
}

absl::StatusOr<SampleBatch> TrainLoader::GetBatch(int64_t step, int64_t begin, int64_t count) const {
  COHORT_CHECK(step >= 0 && begin >= 0 && count >= 0 && begin + count <= options_.global_batch,
               "samples %ld + %ld of step %ld", static_cast<long>(begin), static_cast<long>(count),
               static_cast<long>(step));
  const int64_t length = options_.sequence_length;
  SampleBatch batch = NewBatch(count, length);
  std::vector<int32_t> window(static_cast<size_t>(length + 1));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t sample = step * options_.global_batch + begin + i;
    COHORT_RETURN_IF_ERROR(dataset_->Read(WindowOf(sample) * length, absl::MakeSpan(window)));
    std::copy(window.begin(), window.end() - 1, batch.tokens.begin() + i * length);
    std::copy(window.begin() + 1, window.end(), batch.targets.begin() + i * length);
  }
  return batch;
}

LoaderState TrainLoader::StateAt(int64_t step) const { return {step, options_, dataset_->fingerprint()}; }

absl::Status TrainLoader::CheckResume(const LoaderState& state) const {
  const auto differs = [](const char* what, const auto& before, const auto& now) {
    return absl::FailedPreconditionError(absl::StrCat("the run cannot go on exactly: ", what, " was ", before,
                                                      " when the checkpoint was made and is ", now, " now"));
  };
  const TrainLoaderOptions& before = state.options;
  if (state.data_fingerprint != dataset_->fingerprint()) {
    return differs("the fingerprint of the training data", state.data_fingerprint, dataset_->fingerprint());
  }
  if (before.seed != options_.seed) return differs("the seed", before.seed, options_.seed);
  if (before.sequence_length != options_.sequence_length) {
    return differs("the sequence length", before.sequence_length, options_.sequence_length);
  }
  if (before.global_batch != options_.global_batch) {
    return differs("the global batch", before.global_batch, options_.global_batch);
  }
  return absl::OkStatus();
}

EvaluationLoader::EvaluationLoader(std::shared_ptr<const TokenDataset> dataset, int64_t sequence_length)
    : dataset_(std::move(dataset)),
      sequence_length_(sequence_length),
      windows_((dataset_->num_tokens() + sequence_length - 1) / sequence_length) {}

absl::StatusOr<EvaluationLoader> EvaluationLoader::Create(std::shared_ptr<const TokenDataset> dataset,
                                                          int64_t sequence_length) {
  if (sequence_length <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the sequence length (", sequence_length, ") must be positive"));
  }
  return EvaluationLoader(std::move(dataset), sequence_length);
}

absl::StatusOr<SampleBatch> EvaluationLoader::GetWindows(int64_t begin, int64_t count) const {
  COHORT_CHECK(begin >= 0 && count >= 0 && begin + count <= windows_, "windows %ld + %ld of %ld",
               static_cast<long>(begin), static_cast<long>(count), static_cast<long>(windows_));
  SampleBatch batch = NewBatch(count, sequence_length_);
  const int64_t first = begin * sequence_length_;  // the first target
  const int64_t end = std::min(first + count * sequence_length_, dataset_->num_tokens());
  const auto known = static_cast<size_t>(std::max<int64_t>(end - first, 0));
  std::fill(batch.tokens.begin(), batch.tokens.end(), dataset_->eos_id());
  std::fill(batch.targets.begin(), batch.targets.end(), -1);
  COHORT_RETURN_IF_ERROR(dataset_->Read(first, absl::MakeSpan(batch.targets).first(known)));
  // The input at a place is the target before it.
  if (known > 1) std::copy_n(batch.targets.begin(), known - 1, batch.tokens.begin() + 1);
  if (first > 0 && known > 0) {
    COHORT_RETURN_IF_ERROR(dataset_->Read(first - 1, absl::MakeSpan(batch.tokens).first(1)));
  }
  return batch;
}

}  // namespace cohort::runtime
