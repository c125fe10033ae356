#include "runtime/data/loader.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/data/permutation.h"

namespace cohort::runtime {
namespace {

SampleBatch NewBatch(std::vector<int64_t> lengths) {
  SampleBatch batch;
  batch.count = static_cast<int64_t>(lengths.size());
  batch.tokens.resize(
      static_cast<size_t>(std::accumulate(lengths.begin(), lengths.end(), static_cast<int64_t>(0))));
  batch.targets.resize(batch.tokens.size());
  batch.lengths = std::move(lengths);
  return batch;
}

// The first window of each document; those of one token, which predicts nothing, have none.
std::vector<int64_t> FirstWindows(const TokenDataset& dataset, int64_t sequence_length) {
  std::vector<int64_t> first = {0};
  for (int64_t document = 0; document < dataset.num_documents(); ++document) {
    const int64_t end =
        document + 1 < dataset.num_documents() ? dataset.DocumentBegin(document + 1) : dataset.num_tokens();
    const int64_t predicting = std::max<int64_t>(end - dataset.DocumentBegin(document) - 1, 0);
    first.push_back(first.back() + (predicting + sequence_length - 1) / sequence_length);
  }
  return first;
}

}  // namespace

std::string LoaderState::ToJson() const {
  return nlohmann::ordered_json{{"step", step},
                                {"seed", options.seed},
                                {"sequence_length", options.sequence_length},
                                {"global_batch", options.global_batch},
                                {"documents", options.documents},
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
  state.options.documents = root.value("documents", nlohmann::json(false)) == true;
  return state;
}

TrainLoader::TrainLoader(std::shared_ptr<const TokenDataset> dataset, TrainLoaderOptions options)
    : dataset_(std::move(dataset)),
      options_(options),
      first_window_(options.documents ? FirstWindows(*dataset_, options.sequence_length)
                                      : std::vector<int64_t>()),
      samples_(options.documents ? first_window_.back()
                                 : (dataset_->num_tokens() - 1) / options.sequence_length) {}

absl::StatusOr<TrainLoader> TrainLoader::Create(std::shared_ptr<const TokenDataset> dataset,
                                                TrainLoaderOptions options) {
  if (options.sequence_length <= 0 || options.global_batch <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("the sequence length (", options.sequence_length,
                                                   ") and the global batch (", options.global_batch,
                                                   ") must be positive"));
  }
  if (!options.documents && dataset->num_tokens() <= options.sequence_length) {
    return absl::InvalidArgumentError(absl::StrCat("the data has ", dataset->num_tokens(),
                                                   " tokens, one sample needs ", options.sequence_length + 1,
                                                   "; use more text or a shorter sequence length"));
  }
  TrainLoader loader(std::move(dataset), options);
  if (loader.samples_ == 0) {
    return absl::InvalidArgumentError("no document of the data has two tokens: there is nothing to predict");
  }
  return loader;
}

TrainLoader::Window TrainLoader::WindowAt(int64_t window) const {
  const int64_t most = options_.sequence_length;
  if (!options_.documents) return {window * most, most};
  const auto next = std::upper_bound(first_window_.begin(), first_window_.end(), window);
  const int64_t document = next - first_window_.begin() - 1;
  const int64_t begin = dataset_->DocumentBegin(document) + (window - first_window_[document]) * most;
  const int64_t end = document + 1 < dataset_->num_documents() ? dataset_->DocumentBegin(document + 1)
                                                               : dataset_->num_tokens();
  return {begin, std::min(most, end - 1 - begin)};
}

std::vector<int64_t> TrainLoader::Lengths(int64_t step, int64_t begin, int64_t count) const {
  std::vector<int64_t> lengths;
  for (int64_t i = begin; i < begin + count; ++i) {
    lengths.push_back(WindowAt(WindowOf(step * options_.global_batch + i)).length);
  }
  return lengths;
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
  SampleBatch batch = NewBatch(Lengths(step, begin, count));
  std::vector<int32_t> window;
  auto tokens = batch.tokens.begin(), targets = batch.targets.begin();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t sample = step * options_.global_batch + begin + i, length = batch.lengths[i];
    window.resize(static_cast<size_t>(length + 1));
    COHORT_RETURN_IF_ERROR(dataset_->Read(WindowAt(WindowOf(sample)).begin, absl::MakeSpan(window)));
    tokens = std::copy(window.begin(), window.end() - 1, tokens);
    targets = std::copy(window.begin() + 1, window.end(), targets);
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
  if (before.documents != options_.documents) {
    return differs("what a sample is", before.documents ? "a document" : "a window",
                   options_.documents ? "a document" : "a window");
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
  SampleBatch batch = NewBatch(std::vector<int64_t>(static_cast<size_t>(count), sequence_length_));
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
