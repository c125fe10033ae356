#include "tools/cohort/loader_source.h"

#include <numeric>
#include <utility>
#include <vector>

#include "comm/check.h"

namespace cohort::tools {
namespace {

using runtime::Device;
using runtime::SampleBatch;
using runtime::Tensor;

// Samples packed one after another.
parallel::Samples Pack(const SampleBatch& batch, Device& device) {
  const auto tokens = static_cast<int64_t>(batch.tokens.size());
  std::vector<int32_t> positions(batch.tokens.size());
  std::vector<int32_t> offsets = {0};
  for (const int64_t length : batch.lengths) {
    const auto begin = positions.begin() + offsets.back();
    std::iota(begin, begin + length, 0);
    offsets.push_back(offsets.back() + static_cast<int32_t>(length));
  }
  parallel::Samples samples;
  samples.tokens = {
      .tokens = Tensor::FromHost(device, {tokens}, absl::Span<const int32_t>(batch.tokens)),
      .targets = Tensor::FromHost(device, {tokens}, absl::Span<const int32_t>(batch.targets)),
      .positions = Tensor::FromHost(device, {tokens}, absl::Span<const int32_t>(positions)),
      .offsets = Tensor::FromHost(device, {batch.count + 1}, absl::Span<const int32_t>(offsets)),
      .host_offsets = offsets};
  return samples;
}

class LoaderSource final : public parallel::BatchSource {
 public:
  LoaderSource(std::shared_ptr<const runtime::TrainLoader> training,
               std::shared_ptr<const runtime::EvaluationLoader> held_out, Device& device)
      : training_(std::move(training)), held_out_(std::move(held_out)), device_(device) {}

  absl::StatusOr<parallel::Samples> Training(int64_t step, int64_t begin, int64_t count) override {
    COHORT_ASSIGN_OR_RETURN(const SampleBatch batch, training_->GetBatch(step, begin, count));
    return Pack(batch, device_);
  }

  absl::StatusOr<std::vector<int64_t>> TrainingLengths(int64_t step, int64_t count) override {
    return training_->Lengths(step, 0, count);
  }

  int64_t held_out() const override { return held_out_ == nullptr ? 0 : held_out_->num_windows(); }

  absl::StatusOr<parallel::Samples> HeldOut(int64_t begin, int64_t count) override {
    COHORT_ASSIGN_OR_RETURN(const SampleBatch batch, held_out_->GetWindows(begin, count));
    parallel::Samples samples = Pack(batch, device_);
    // The text's bytes, shared out over the windows so that those of all windows add up to the whole.
    const int64_t windows = held_out_->num_windows(), bytes = held_out_->text_bytes();
    samples.bytes = bytes * (begin + count) / windows - bytes * begin / windows;
    return samples;
  }

 private:
  std::shared_ptr<const runtime::TrainLoader> training_;
  std::shared_ptr<const runtime::EvaluationLoader> held_out_;
  Device& device_;
};

}  // namespace

std::unique_ptr<parallel::BatchSource> MakeLoaderSource(
    std::shared_ptr<const runtime::TrainLoader> training,
    std::shared_ptr<const runtime::EvaluationLoader> held_out, Device& device) {
  return std::make_unique<LoaderSource>(std::move(training), std::move(held_out), device);
}

}  // namespace cohort::tools
